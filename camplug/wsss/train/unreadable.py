"""Handling of unreadable images in trainings."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.processes import exchange

T = TypeVar("T")

MAX_MISSING = 0.05  # share of a training's images that may be missing without --allow-missing
SHOWN = 3  # names in a message
SUBSTITUTE = 7  # last part of the seed for choosing a substitute, different from the seeds of crops


def find_readable(
    data: SegmentationData, *, labels: bool = False, allow_missing: bool = False
) -> tuple[list[int], list[tuple[str, str]]]:
    """Find the images whose files exist.

    Photographs are not decoded: 10,000 take about a second on a local disk.

    Args:
        data: images.
        labels: require image-level labels.
        allow_missing: allow any share of missing images.

    Returns:
        Numbers of these images, and the names of the others with the reasons.

    Raises:
        InputError: more than 5 % are missing and that is not allowed, none is left, or the data has no labels.
    """
    if labels and not data.has_labels:
        raise InputError("the data has no image labels, which this training learns from; give data with labels.")
    kept, missing = [], []
    for i, name in enumerate(data.ids):
        try:
            data.check_photo(i)
            if labels:
                data.labels(i)
        except InputError as error:
            missing.append((name, str(error)))
        else:
            kept.append(i)
    check_share(missing, len(data), allow_missing)
    if not kept:
        raise InputError(f"none of the {len(data)} images can be read; the first one: {missing[0][1]}")
    return kept, missing


def check_share(missing: Sequence[tuple[str, str]], count: int, allow_missing: bool) -> None:
    """Check that at most 5 % of the images are missing.

    Args:
        missing: names and reasons.
        count: number of all images.
        allow_missing: allow any share.

    Raises:
        InputError: more are missing; the message names the first ones.
    """
    if allow_missing or len(missing) <= MAX_MISSING * count:
        return
    first = "; ".join(error.rstrip(".") for _, error in missing[:SHOWN])
    raise InputError(
        f"{len(missing)} of {count} images cannot be read, more than {MAX_MISSING:.0%}: {first}"
        f"{'; ...' if len(missing) > SHOWN else ''}. Mend them, or train without them with --allow-missing "
        "(allow_missing in Python and in recipes)."
    )


class Substitutes(Generic[T]):
    """Replacement of images that become unreadable during a training.

    The choice depends on the seed, the epoch and the image only. Unreadable images are recorded in shared memory, so
    that the training process knows those of its loader processes.

    Args:
        data: images.
        load: loader of image i.
        allow_missing: allow any share of unreadable images.
    """

    def __init__(self, data: SegmentationData, load: Callable[[int], T], allow_missing: bool = False) -> None:
        self.data, self.load, self.allow_missing = data, load, allow_missing
        self.failed: Tensor = torch.zeros(len(data), dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]

    def leave_out(self, kept: Sequence[int]) -> None:
        """Record all other images as unreadable, so that they count for the limit of 5 %.

        Args:
            kept: numbers of the images found before the training.
        """
        self.failed[:] = 1
        self.failed[list(kept)] = 0

    def read(
        self, i: int, others: Sequence[int], key: Sequence[int], is_alike: Callable[[int], bool] = lambda j: True
    ) -> tuple[int, T]:
        """Load image i or, if it is unreadable, a substitute.

        Args:
            i: number of the image.
            others: numbers of all images of the training.
            key: seed of the choice of a substitute.
            is_alike: predicate of preferred substitutes.

        Returns:
            Number of the loaded image and its content.

        Raises:
            InputError: no image is readable.
        """
        try:
            return i, self.load(i)
        except InputError as error:
            self.note(i, error)
        rng = np.random.default_rng((*key, SUBSTITUTE))
        order = [others[int(n)] for n in rng.permutation(len(others))]
        for alike in (True, False):
            for j in order:
                if j == i or is_alike(j) is not alike:
                    continue
                try:
                    return j, self.load(j)
                except InputError as error:
                    self.note(j, error)
        raise InputError(f"none of the {len(others)} images can be read; the first one: {self.list_broken()[0][1]}")

    def note(self, i: int, error: InputError) -> None:
        """Record that image i is unreadable; warn once per process."""
        if not self.failed[i]:
            warnings.warn(f"{self.data.ids[i]}: {error}", stacklevel=3)
        self.failed[i] = 1

    def check(self) -> None:
        """Check that at most 5 % of the images are unreadable.

        Raises:
            InputError: more are unreadable and that is not allowed.
        """
        if not self.allow_missing and int(self.failed.sum()) > MAX_MISSING * len(self.data):
            check_share(self.list_broken(), len(self.data), allow_missing=False)

    def list_broken(self) -> list[tuple[str, str]]:
        """List the names of the images that this process and its loaders could not read, with the reasons."""
        found = []
        for i in self.failed.nonzero().flatten().tolist():
            reason = "it could not be read in the middle of the training; by now it can."
            try:
                self.load(i)
            except InputError as error:
                reason = str(error)
            found.append((self.data.ids[i], reason))
        return found


def join_broken(data: SegmentationData, *lists: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Merge the lists of images left out by all processes, each image once, in the order of the data.

    Args:
        data: images.
        lists: names and reasons, of this process.
    """
    mine = {name: error for part in lists for name, error in part}
    errors: dict[str, str] = {}
    for text in exchange("unreadable", json.dumps(mine)):
        errors |= json.loads(text)
    return [(name, errors[name]) for name in data.ids if name in errors]
