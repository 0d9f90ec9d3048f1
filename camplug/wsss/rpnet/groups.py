"""Training items of RPNet: crops of images that share a class."""

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

PARTNERS, ORDER = LARGEST_GROUP, LARGEST_GROUP + 1  # slots of the random numbers that no crop uses


class Groups(Dataset[ClassifierCrop]):
    """Groups of an image and partners that share one of its classes, each image with a crop of its own.

    The first images of the groups follow a random order of each epoch, so that all come first equally often; their
    partners are drawn. Item (epoch, number) depends on these and the seed only. Groups of one are the crops themselves.

    Args:
        crops: crops of single images.
        group: images per item, 1 to 4.
        each_first: every image is the first one of a group in every epoch: N items. Without, an epoch has as many
            images as the data set: N // group items.

    Raises:
        InputError: the group size is out of range, or no image has a class.
    """

    def __init__(self, crops: ClassifierCrops, group: int = 2, *, each_first: bool = True) -> None:
        self.crops, self.group, self.seed, self.each_first = crops, group, crops.seed, each_first
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._partners = None
        if group == 1:
            return
        self._partners = Partners([crops.get_classes(i) for i in crops.indices], group)
        alone = len(self._partners.alone)
        if alone:
            warnings.warn(
                f"{alone} of {len(crops)} images share no class with another image, so each of them is its own "
                "partner.",
                stacklevel=2,
            )

    def __len__(self) -> int:
        return len(self.crops) if self.each_first else len(self.crops) // self.group

    @override
    def __getitem__(self, which: tuple[int, int]) -> ClassifierCrop:
        """Load a group: pixels [k,3,S,S], present [k,C], image [k]."""
        epoch, number = which
        members = [self.crops.indices[n] for n in self.list_members(epoch, number)]
        classes = self.crops.get_classes(members[0])
        found = [self.crops.load_crop(epoch, i, slot, classes) for slot, i in enumerate(members)]
        return ClassifierCrop(*(torch.stack(parts) for parts in zip(*found, strict=True)))

    @property
    def substitutes(self) -> Substitutes[Image]:
        """Record of unreadable photographs."""
        return self.crops.substitutes

    def list_members(self, epoch: int, number: int) -> list[int]:
        """List the images of an item as positions in `crops.indices`, the one that partners are drawn for first."""
        if self._partners is None:
            return [number]
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch, 0, ORDER))
            self._order = (epoch, rng.permutation(len(self.crops)))
        first = int(self._order[1][number])
        rng = np.random.default_rng((self.seed, epoch, first, PARTNERS))
        return [first, *self._partners.draw(first, rng)[0]]
