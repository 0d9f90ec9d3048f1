"""What RPNet runs through: crops of images that share a class, together in one item."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from typing_extensions import override

from camplug.wsss.classifier.crops import ClassifierCrop, ClassifierCrops
from camplug.wsss.rpnet.comparison import LARGEST_GROUP
from camplug.wsss.rpnet.pairs import Partners
from camplug.wsss.train.unreadable import Substitutes

if TYPE_CHECKING:
    from PIL.Image import Image

PARTNERS, ORDER = LARGEST_GROUP, LARGEST_GROUP + 1  # places in the random numbers that no crop takes


class Groups(Dataset[ClassifierCrop]):
    """Groups of an image and partners that share one of its classes, each image with a crop of its own.

    An epoch has as many images as the data set, so a group of k is one of N // k items. A new order of all images in
    each epoch says which come first in a group, so that over the epochs all do alike; their partners are drawn. The
    item (epoch, number) depends on them and the seed alone. Groups of one are the pictures themselves.

    Args:
        pictures: the crops.
        group: images per item, 1 to 4.

    Raises:
        InputError: a group outside of its range, or no image that shows a class.
    """

    def __init__(self, pictures: ClassifierCrops, group: int = 2) -> None:
        self.pictures, self.group, self.seed = pictures, group, pictures.seed
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._partners = None
        if group == 1:
            return
        self._partners = Partners([pictures.get_classes(i) for i in pictures.indices], group)
        alone = len(self._partners.alone)
        if alone:
            warnings.warn(
                f"{alone} of {len(pictures)} images share no class with another image, so each of them is its own "
                "partner.",
                stacklevel=2,
            )

    def __len__(self) -> int:
        return len(self.pictures) // self.group

    @override
    def __getitem__(self, which: tuple[int, int]) -> ClassifierCrop:
        """Tensors of a group: pixels [k,3,S,S], present [k,C], image [k]."""
        epoch, number = which
        members = [self.pictures.indices[n] for n in self.list_members(epoch, number)]
        classes = self.pictures.get_classes(members[0])
        found = [self.pictures.load_crop(epoch, i, slot, classes) for slot, i in enumerate(members)]
        return ClassifierCrop(*(torch.stack(parts) for parts in zip(*found, strict=True)))

    @property
    def substitutes(self) -> Substitutes[Image]:
        """What could not be read."""
        return self.pictures.substitutes

    def list_members(self, epoch: int, number: int) -> list[int]:
        """The images of an item, the one first that its partners are drawn for, as numbers in `pictures.indices`."""
        if self._partners is None:
            return [number]
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch, 0, ORDER))
            self._order = (epoch, rng.permutation(len(self.pictures)))
        first = int(self._order[1][number])
        rng = np.random.default_rng((self.seed, epoch, first, PARTNERS))
        return [first, *self._partners.draw(first, rng)[0]]
