"""Crops with labels and, if wanted, the saliency of the same pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from camplug.errors import InputError
from camplug.explain.preprocess import Preprocess
from camplug.wsss.data import SegmentationData
from camplug.wsss.data.dataset import IGNORE
from camplug.wsss.train.crops import LabelCrops
from camplug.wsss.train.device import per_channel

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

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, which: tuple[int, int]) -> SegmentationCrop:
        crops, number = self.crops, self.crops.indices[which[1]]
        image, labels = crops[which]
        plane = np.zeros((0, 0), np.float32)
        if self.saliency is not None:
            plane = np.zeros((crops.crop, crops.crop), np.float32)
            try:
                picture = Image.fromarray(np.asarray(self.saliency(crops.data, number), np.float32))
                view = crops.view(picture.size, which[0], number)
                plane[view.rows, view.columns] = view.part(picture, Image.Resampling.BILINEAR)
            except InputError as error:
                warnings.warn(f"{crops.data.ids[number]}: {error}", stacklevel=2)
                labels = torch.full_like(labels, IGNORE)
        return SegmentationCrop(image, labels, torch.from_numpy(plane), torch.tensor(number))


def normalizer(preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    """From pixels [...,3,H,W] in 0 to 255 to what a network with this preprocessing reads."""
    return partial(_normalized, mean=preprocess.mean, std=preprocess.std)


def _normalized(pixels: Tensor, mean: Any, std: Any) -> Tensor:
    middle, spread = (255 * per_channel(tuple(v), pixels.device) for v in (mean, std))
    return (pixels.float() - middle) / spread
