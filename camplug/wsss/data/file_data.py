"""Base class of data sets whose photographs and masks are files."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from camplug.images.photo import read_photo
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.data.masks import MaskFiles
from camplug.wsss.data.read_files import check_size

if TYPE_CHECKING:
    from PIL.Image import Image


class FileData(SegmentationData):
    """Data set with photographs and masks in files."""

    _masks: MaskFiles

    @abstractmethod
    @override
    def photo_file(self, i: int) -> Path: ...

    @override
    def photo(self, i: int) -> Image:
        return read_photo(self.photo_file(i))

    @override
    def mask(self, i: int) -> NDArray[np.uint8]:
        i = self._check_index(i)
        mask = self._masks.read(i)
        size = (mask.shape[1], mask.shape[0])
        check_size(self.photo_file(i), size, f"the mask {str(self._masks.file(i))!r}")
        return mask

    @override
    def mask_digest(self, i: int) -> str:
        return self._masks.compute_digest(self._check_index(i))
