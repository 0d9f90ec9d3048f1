"""Data set that shows another one with something changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from camplug.wsss.data.dataset import SegmentationData

if TYPE_CHECKING:
    from PIL.Image import Image


class DataView(SegmentationData):
    """Base of data sets that pass on everything of another one but what they override.

    Args:
        data: the other data set.
    """

    def __init__(self, data: SegmentationData) -> None:
        self.data, self.classes, self.ids = data, data.classes, data.ids
        self.has_labels, self.has_masks = data.has_labels, data.has_masks

    def get_number(self, i: int) -> int:
        """Return the number of image i in the other data set."""
        return self._check_index(i)

    @property
    @override
    def image_numbers(self) -> tuple[Any, ...]:
        numbers = self.data.image_numbers
        return tuple(numbers[self.get_number(i)] for i in range(len(self)))

    @property
    @override
    def class_numbers(self) -> tuple[Any, ...]:
        return self.data.class_numbers

    @override
    def labels(self, i: int) -> tuple[int, ...]:
        return self.data.labels(self.get_number(i))

    @override
    def photo(self, i: int) -> Image:
        return self.data.photo(self.get_number(i))

    @override
    def mask(self, i: int) -> NDArray[np.uint8]:
        return self.data.mask(self.get_number(i))

    @override
    def photo_file(self, i: int) -> Path | None:
        return self.data.photo_file(self.get_number(i))

    @override
    def photo_digest(self, i: int) -> str:
        return self.data.photo_digest(self.get_number(i))

    @override
    def label_digest(self, i: int) -> str:
        return self.data.label_digest(self.get_number(i))

    @override
    def mask_digest(self, i: int) -> str:
        return self.data.mask_digest(self.get_number(i))
