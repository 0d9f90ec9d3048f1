"""Pictures that stand for a data set which is not on disk, and parts of one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from typing_extensions import override

from camplug.wsss.data import SegmentationData

COUNT = 4  # pictures that stand for all


class Blank(SegmentationData):
    """Pictures of clouds of a usual size, where a data set is not on disk.

    Args:
        size: height and width.
        classes: how many.
        shown: how many an image shows.
    """

    has_masks = False

    def __init__(self, size: tuple[int, int], classes: int, shown: float) -> None:
        self.size, self.shown = size, max(1, min(classes, round(shown)))
        self.classes = tuple(f"class {c}" for c in range(classes))
        self.ids = tuple(f"blank{i}" for i in range(COUNT))

    @override
    def labels(self, i: int) -> tuple[int, ...]:
        return tuple(range(self.shown))

    @override
    def photo(self, i: int) -> Image.Image:
        planes = [clouds(self.size, 3 * i + c) for c in range(3)]
        return Image.fromarray((255 * np.stack(planes, -1)).astype(np.uint8))

    @override
    def mask(self, i: int) -> NDArray[np.uint8]:
        return np.zeros(self.size, np.uint8)


def clouds(size: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """A smooth plane from 0 to 1."""
    small = np.random.default_rng(seed).random((max(2, size[0] // 16), max(2, size[1] // 16)))
    plane = ndimage.zoom(small, (size[0] / small.shape[0], size[1] / small.shape[1]), order=1)
    plane = np.clip(plane[: size[0], : size[1]], 0, 1)
    return np.asarray(np.pad(plane, [(0, size[0] - plane.shape[0]), (0, size[1] - plane.shape[1])], "edge"), np.float32)


class First(SegmentationData):
    """The first images of a data set, without masks."""

    has_masks = False

    def __init__(self, data: SegmentationData, count: int) -> None:
        self.data, self.classes, self.ids = data, data.classes, data.ids[:count]

    @override
    def labels(self, i: int) -> tuple[int, ...]:
        return self.data.labels(i)

    @override
    def photo(self, i: int) -> Image.Image:
        return self.data.photo(i)

    @override
    def mask(self, i: int) -> NDArray[np.uint8]:
        raise NotImplementedError
