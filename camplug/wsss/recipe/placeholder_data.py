"""Images that stand for a data set in estimates: synthetic ones where it is not on disk, or one of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from typing_extensions import override

from camplug.wsss.data import SegmentationData

COUNT = 4  # synthetic images of a list


class SyntheticImages(SegmentationData):
    """Synthetic images of one size, for a data set that is not on disk.

    Args:
        size: height and width.
        classes: number of classes.
        shown: number of classes in an image.
    """

    has_masks = False

    def __init__(self, size: tuple[int, int], classes: int, shown: float) -> None:
        self.size, self.shown = size, max(1, min(classes, round(shown)))
        self.classes = tuple(f"class {c}" for c in range(classes))
        self.ids = tuple(f"synthetic{i}" for i in range(COUNT))
        self._photos: dict[int, Image.Image] = {}

    @override
    def labels(self, i: int) -> tuple[int, ...]:
        return tuple(range(self.shown))

    @override
    def photo(self, i: int) -> Image.Image:
        if i not in self._photos:
            planes = [draw_clouds(self.size, 3 * i + c) for c in range(3)]
            self._photos[i] = Image.fromarray((255 * np.stack(planes, -1)).astype(np.uint8))
        return self._photos[i]

    @override
    def mask(self, i: int) -> NDArray[np.uint8]:
        return np.zeros(self.size, np.uint8)


class SampleImages(SegmentationData):
    """First image of a data set at another size, as often as needed, with a synthetic mask.

    Args:
        data: the data set.
        size: height and width.
        shown: number of classes that the image is labelled with.
        classes: number of classes; None keeps the data's.
        count: number of images.
    """

    has_masks = True

    def __init__(
        self, data: SegmentationData, size: tuple[int, int], shown: int, classes: int | None = None, count: int = 1
    ) -> None:
        own = classes in (None, len(data.classes))
        self.classes = data.classes if own else tuple(f"class {c}" for c in range(classes or 0))
        self.data, self.size, self.ids = data, size, tuple(f"sample{i}" for i in range(count))
        self._resized = None if _get_size(data.photo(0)) == size else data.photo(0).resize(size[::-1])
        self._labels = tuple(range(min(shown, len(self.classes))))

    @override
    def labels(self, i: int) -> tuple[int, ...]:
        return self._labels

    @override
    def photo(self, i: int) -> Image.Image:
        return self.data.photo(0) if self._resized is None else self._resized

    @override
    def photo_file(self, i: int) -> Path | None:
        return self.data.photo_file(0) if self._resized is None else None

    @override
    def mask(self, i: int) -> NDArray[np.uint8]:
        shown = draw_clouds(self.size, 3) > 0.6
        return np.asarray(shown * (self._labels[0] + 1), np.uint8)


def _get_size(photo: Image.Image) -> tuple[int, int]:
    return photo.height, photo.width


def draw_clouds(size: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """Return a smooth random plane with values from 0 to 1."""
    small = np.random.default_rng(seed).random((max(2, size[0] // 16), max(2, size[1] // 16)))
    plane = ndimage.zoom(small, (size[0] / small.shape[0], size[1] / small.shape[1]), order=1)
    plane = np.clip(plane[: size[0], : size[1]], 0, 1)
    return np.asarray(np.pad(plane, [(0, size[0] - plane.shape[0]), (0, size[1] - plane.shape[1])], "edge"), np.float32)
