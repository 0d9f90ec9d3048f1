"""Drawing of groups of images that share a class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from camplug.errors import InputError
from camplug.wsss.rpnet.comparison import LARGEST_GROUP

NO_CLASS = -1


class Partners:
    """Drawing of partners of an image that show one of its classes.

    Args:
        labels: classes of every image; integers from 0.
        group: images per group including the first one, 1 to 4.

    Raises:
        InputError: the group size is out of range, there is no image or none with a class, or a class is negative.

    >>> pairs = Partners([[0], [0, 2], [1]])
    >>> pairs.draw(0, np.random.default_rng(0)), pairs.alone
    (([1], 0), [2])
    """

    def __init__(self, labels: Sequence[Sequence[int]], group: int = 2) -> None:
        if not 1 <= group <= LARGEST_GROUP:
            raise InputError(f"group={group}; give 1 to {LARGEST_GROUP} images.")
        self.group = group
        self._classes = [sorted({int(c) for c in classes}) for classes in labels]
        if not self._classes:
            raise InputError("no image given; give the classes of at least one.")
        members: dict[int, list[int]] = defaultdict(list)
        for i, classes in enumerate(self._classes):
            for c in classes:
                if c < 0:
                    raise InputError(f"image {i} shows class {c}; classes are whole numbers from 0.")
                members[c].append(i)
        if not members:
            raise InputError(f"none of the {len(self._classes)} images shows a class; give image-level labels.")
        self._members = {c: np.asarray(images) for c, images in members.items()}  # ascending

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._classes)

    @property
    def alone(self) -> list[int]:
        """Numbers of the images that share no class with any other image."""
        return [i for i in range(len(self)) if not self._shared(i)]

    def draw(self, i: int, rng: np.random.Generator) -> tuple[list[int], int]:
        """Draw the other images of a group and the class that they share with image `i`.

        First a random class that another image shows, too, then distinct random images of it other than `i`. If they
        are too few for the group, they are repeated in turn. An image that shares no class is its own partner, with one
        of its own classes, or -1 if it has none.

        Args:
            i: number of the image.
            rng: random generator.

        Returns:
            group-1 image numbers, and the class.

        Raises:
            InputError: the image does not exist.
        """
        if not 0 <= i < len(self):
            raise InputError(f"image {i} does not exist; give 0 to {len(self) - 1}.")
        wanted = self.group - 1
        shared = self._shared(i)
        candidates = shared or self._classes[i]
        chosen = candidates[int(rng.integers(len(candidates)))] if candidates else NO_CLASS
        if not shared:
            return [i] * wanted, chosen
        members = self._members[chosen]
        own = int(np.searchsorted(members, i))
        others = len(members) - 1
        drawn = rng.choice(others, min(wanted, others), replace=False)
        images = [int(members[d + (d >= own)]) for d in drawn]  # skip `i`
        return [images[n % len(images)] for n in range(wanted)] if images else [], chosen

    def _shared(self, i: int) -> list[int]:
        return [c for c in self._classes[i] if len(self._members[c]) > 1]
