"""Leave out of a training what cannot be read, tell of it, and end the training where it is too much."""

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
from camplug.wsss.store.jobs import exchange

T = TypeVar("T")

MOST = 0.05  # share of a training's images that may be missing without --allow-missing
SHOWN = 3  # names in a message
SUBSTITUTE = 7  # ends the random numbers that choose one; crops take others


def find_readable(
    data: SegmentationData, *, labels: bool = False, allow_missing: bool = False
) -> tuple[list[int], list[tuple[str, str]]]:
    """Return the images whose files are there, and the names of the others with the reasons.

    Photographs are looked up and not decoded: 10,000 take about a second on a local disk.

    Args:
        data: the images.
        labels: whether image-level labels are needed, too.
        allow_missing: whether any share of the images may be missing.

    Raises:
        InputError: more than 5 % are missing and that is not allowed, or none is left; no labels where they are needed.
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
    """Refuse to train where more than 5 % of the images are missing.

    Args:
        missing: names and reasons.
        count: number of all images.
        allow_missing: whether any share of them may be missing.

    Raises:
        InputError: it is more, with the first ones.
    """
    if allow_missing or len(missing) <= MOST * count:
        return
    first = "; ".join(error.rstrip(".") for _, error in missing[:SHOWN])
    raise InputError(
        f"{len(missing)} of {count} images cannot be read, more than {MOST:.0%}: {first}"
        f"{'; ...' if len(missing) > SHOWN else ''}. Mend them, or train without them with --allow-missing "
        "(allow_missing in Python and in recipes)."
    )


class Substitutes(Generic[T]):
    """Lets another image take the place of one that cannot be read in the middle of a training.

    Which one depends on the seed, the epoch and the image alone. What could not be read is kept in shared memory, so
    that the process that trains learns what the processes that load have met.

    Args:
        data: the images.
        load: reader of an image, by its number.
        allow_missing: whether any share of the images may be unreadable.
    """

    def __init__(self, data: SegmentationData, load: Callable[[int], T], allow_missing: bool = False) -> None:
        self.data, self.load, self.allow_missing = data, load, allow_missing
        self.failed: Tensor = torch.zeros(len(data), dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]

    def leave_out(self, kept: Sequence[int]) -> None:
        """Count all images but some as unreadable, so that the share of 5 % is of these, too.

        Args:
            kept: numbers of the images that were found before the training.
        """
        self.failed[:] = 1
        self.failed[list(kept)] = 0

    def read(
        self, i: int, others: Sequence[int], key: Sequence[int], is_alike: Callable[[int], bool] = lambda j: True
    ) -> tuple[int, T]:
        """Return the number of the image that was read, and what was read of it.

        Args:
            i: number of the image that is wanted.
            others: numbers of all images of the training.
            key: numbers that the draw of a substitute depends on.
            is_alike: whether an image is a better substitute than others.

        Raises:
            InputError: none of them can be read.
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
        raise InputError(f"none of the {len(others)} images can be read; the first one: {self.broken()[0][1]}")

    def note(self, i: int, error: InputError) -> None:
        """Keep, and tell once in every process, that image i cannot be read."""
        if not self.failed[i]:
            warnings.warn(f"{self.data.ids[i]}: {error}", stacklevel=3)
        self.failed[i] = 1

    def check(self) -> None:
        """End a training where more than 5 % of the images could not be read.

        Raises:
            InputError: it is more and that is not allowed.
        """
        if not self.allow_missing and int(self.failed.sum()) > MOST * len(self.data):
            check_share(self.broken(), len(self.data), allow_missing=False)

    def broken(self) -> list[tuple[str, str]]:
        """Return the names of the images that this process and its loaders could not read, with the reasons."""
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
    """Return what all processes left out of a training, each image once, in the order of the data.

    Args:
        data: the images.
        lists: names and reasons; every process brings its own.
    """
    mine = {name: error for part in lists for name, error in part}
    errors: dict[str, str] = {}
    for text in exchange("unreadable", json.dumps(mine)):
        errors |= json.loads(text)
    return [(name, errors[name]) for name in data.ids if name in errors]
