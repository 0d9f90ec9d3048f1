"""Crops with labels and optional saliency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from camplug.wsss.train.crops import LabelCrops
from camplug.wsss.train.unreadable import Substitutes

Saliency = Callable[[int], NDArray[np.float32]]


class SegmentationCrop(NamedTuple):
    """Normalised crop with labels and saliency.

    Attributes:
        image: normalised pixels [3,S,S].
        labels: uint8 [S,S].
        saliency: [S,S], or [0,0] without saliency.
        number: number of the image in the data set.
    """

    image: Tensor
    labels: Tensor
    saliency: Tensor
    number: Tensor


class SegmentationCrops(Dataset[SegmentationCrop]):
    """Crops of `LabelCrops` at full resolution, with saliency cut in the same way (bilinear).

    Items are indexed by (epoch, number) and depend on these and the seed only.

    Args:
        crops: crops of stride 1.
        saliency: loader of the saliency of image i, float [H,W] in [0, 1]; None for no saliency.
        often: numbers of images that have several items, each with a crop of its own.
        repeat: number of their items.
    """

    def __init__(
        self, crops: LabelCrops, saliency: Saliency | None = None, often: Sequence[int] = (), repeat: int = 1
    ) -> None:
        self.crops, self.saliency, self.seed = crops, saliency, crops.seed
        self.often, self.repeat = often, repeat
        self.substitutes = Substitutes(crops.data, self.load, crops.substitutes.allow_missing)

    def __len__(self) -> int:
        return len(self.crops) + (self.repeat - 1) * len(self.often)

    def __getitem__(self, which: tuple[int, int]) -> SegmentationCrop:
        crops, epoch = self.crops, which[0]
        i, draw = self._find_image(which[1])
        number, (photo, labels, salient) = self.substitutes.read(i, crops.indices, (self.seed, epoch, i))
        image, small = crops.cut(photo, labels, crops.make_view(photo.size, epoch, i, draw))
        plane = np.zeros((0, 0), np.float32)
        if salient is not None:
            plane = np.zeros((crops.crop, crops.crop), np.float32)
            view = crops.make_view(salient.size, epoch, i, draw)
            plane[view.rows, view.columns] = view.cut(salient, Image.Resampling.BILINEAR)
        return SegmentationCrop(image, small, torch.from_numpy(plane), torch.tensor(number))

    def _find_image(self, number: int) -> tuple[int, int]:
        """Return the image of an item, and which of its draws in an epoch it is."""
        if number < len(self.crops):
            return self.crops.indices[number], 0
        again, which = divmod(number - len(self.crops), len(self.often))
        return self.often[which], again + 1

    def load(self, i: int) -> tuple[Image.Image, NDArray[np.uint8], Image.Image | None]:
        """Load the photograph of image i, its labels, and its saliency if used.

        Raises:
            InputError: one of them is missing or damaged, or their sizes differ.
        """
        photo, labels = self.crops.load(i)
        if self.saliency is None:
            return photo, labels, None
        return photo, labels, Image.fromarray(np.asarray(self.saliency(i), np.float32))
