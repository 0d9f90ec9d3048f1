"""Validation of DeepLab: mIoU on photographs with masks after every epoch of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.metrics import ConfusionMatrix, iou, miou
from camplug.wsss.data import SegmentationData
from camplug.wsss.deeplab.network import DeepLab
from camplug.wsss.deeplab.segmenter import Segmenter
from camplug.wsss.train.processes import get_rank_and_world, mean_over_processes
from camplug.wsss.train.unreadable import Substitutes

VALIDATION = "validation_miou"  # name of the logged metric
CLASS_VALIDATION = "validation_iou_"  # beginning of the name of a class's metric; the class name follows


class MaskedPhoto(NamedTuple):
    """Photograph, uint8 [H,W,3], and its mask, uint8 [H,W]."""

    photo: NDArray[np.uint8]
    mask: NDArray[np.uint8]


class MaskedPhotos:
    """Photographs with masks, indexed by (epoch, number); an unreadable one is None, which `collate` leaves out.

    Args:
        data: images with masks.
        indices: numbers of the images to use.
        allow_missing: see `camplug.wsss.train.unreadable.Substitutes`.

    Attributes:
        substitutes: record of unreadable images.

    Raises:
        InputError: the data has no masks.
    """

    seed = 0

    def __init__(self, data: SegmentationData, indices: Sequence[int], allow_missing: bool = False) -> None:
        if not data.has_masks:
            raise InputError("the validation data has no masks to compare predictions with; give data that has them.")
        self.data, self.indices = data, list(indices)
        self.substitutes = Substitutes(data, self._load, allow_missing)

    def _load(self, i: int) -> MaskedPhoto:
        return MaskedPhoto(np.asarray(self.data.photo(i)), self.data.mask(i))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, which: tuple[int, int]) -> MaskedPhoto | None:
        i = self.indices[which[1]]
        try:
            return self._load(i)
        except InputError as error:
            self.substitutes.note(i, error)
            return None

    @staticmethod
    def collate(items: list[MaskedPhoto | None]) -> list[MaskedPhoto]:
        """Return the readable images."""
        return [item for item in items if item is not None]


class ValidationScore:
    """IoU of a network's predictions on whole photographs, one view each, over all processes.

    Args:
        network: network.
        long_side: longer side that photographs are first resized to; None keeps their own size.
    """

    def __init__(self, network: DeepLab, long_side: int | None) -> None:
        self.network, self.long_side = network, long_side
        self.confusion = ConfusionMatrix(len(network.classes) + 1)

    def add(self, images: Sequence[MaskedPhoto]) -> None:
        """Segment and count images."""
        segmenter = Segmenter(self.network, long_side=self.long_side)
        for image in images:
            self.confusion.add(segmenter(image.photo), image.mask)

    def compute(self, device: torch.device) -> tuple[float, dict[str, float]]:
        """Return the mIoU over the classes that are present or predicted, and the IoU of each; count from 0 again.

        Args:
            device: device on which processes exchange tensors.
        """
        mean = mean_over_processes(torch.from_numpy(self.confusion.matrix).to(device))
        matrix = (mean * get_rank_and_world()[1]).round().long().cpu().numpy()
        self.confusion = ConfusionMatrix(self.confusion.num_classes)
        found = zip(["background", *self.network.classes], iou(matrix).tolist(), strict=True)
        return float(miou(matrix)), {name: value for name, value in found if not math.isnan(value)}
