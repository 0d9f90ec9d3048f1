"""Crops with labels and, if wanted, the saliency of the same pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from camplug.explain.preprocess import Preprocess
from camplug.wsss.data import SegmentationData
from camplug.wsss.train.crops import LabelCrops
from camplug.wsss.train.device_state import make_channel_tensor
from camplug.wsss.train.unreadable import Substitutes

Saliency = Callable[[SegmentationData, int], NDArray[np.float32]]


class SegmentationCrop(NamedTuple):
    """A normalised crop [3,S,S], its labels [S,S] uint8, its saliency [S,S] or [0,0], the image's number."""

    image: Tensor
    labels: Tensor
    saliency: Tensor
    number: Tensor


class SegmentationCrops(Dataset[SegmentationCrop]):
    """The crops of `LabelCrops` at full resolution, with a plane of saliency that is cut out likewise (bilinear).

    An item is asked for by (epoch, number) and depends on them and the seed alone.

    Args:
        crops: of stride 1.
        saliency: of an image of the data, float [H,W] in [0, 1]; None for none.
    """

    def __init__(self, crops: LabelCrops, saliency: Saliency | None = None) -> None:
        self.crops, self.saliency, self.seed = crops, saliency, crops.seed
        self.substitutes = Substitutes(crops.data, self.load, crops.substitutes.allow_missing)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, which: tuple[int, int]) -> SegmentationCrop:
        crops, epoch, i = self.crops, which[0], self.crops.indices[which[1]]
        number, (photo, labels, salient) = self.substitutes.read(i, crops.indices, (self.seed, epoch, i))
        image, small = crops.cut(photo, labels, crops.make_view(photo.size, epoch, i))
        plane = np.zeros((0, 0), np.float32)
        if salient is not None:
            plane = np.zeros((crops.crop, crops.crop), np.float32)
            view = crops.make_view(salient.size, epoch, i)
            plane[view.rows, view.columns] = view.cut(salient, Image.Resampling.BILINEAR)
        return SegmentationCrop(image, small, torch.from_numpy(plane), torch.tensor(number))

    def load(self, i: int) -> tuple[Image.Image, NDArray[np.uint8], Image.Image | None]:
        """The photograph of image i, its labels, and its saliency where that is wanted.

        Raises:
            InputError: one of them is missing or damaged, or their sizes differ.
        """
        photo, labels = self.crops.load(i)
        if self.saliency is None:
            return photo, labels, None
        return photo, labels, Image.fromarray(np.asarray(self.saliency(self.crops.data, i), np.float32))


def make_normalizer(preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    """From pixels [...,3,H,W] in 0 to 255 to what a network with this preprocessing reads."""
    return partial(_normalized, mean=preprocess.mean, std=preprocess.std)


def _normalized(pixels: Tensor, mean: Any, std: Any) -> Tensor:
    middle, spread = (255 * make_channel_tensor(tuple(v), pixels.device) for v in (mean, std))
    return (pixels.float() - middle) / spread
