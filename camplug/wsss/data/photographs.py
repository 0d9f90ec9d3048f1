"""Photographs without image-level labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.images.photo import list_photos, read_photo
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.data.read_files import check_unique, strip_ending

if TYPE_CHECKING:
    from PIL.Image import Image


class Photographs(SegmentationData):
    """Photographs without labels: files, patterns, and all photographs in folders and their subfolders.

    Args:
        paths: files, folders, and patterns such as "photos/*.jpg". Photographs in folders are named by their path in
            the folder, files by their name.
        classes: class names of the network that predicts them.

    Raises:
        InputError: a path does not exist, a folder has no photographs, or two photographs have the same name.
    """

    has_labels = False
    has_masks = False

    def __init__(self, paths: Sequence[str | os.PathLike[str]], classes: Sequence[str] = ()) -> None:
        self.paths, self.classes = tuple(paths), tuple(classes)
        self._files = {}
        names = []
        for path in (path for given in paths for path in _find_paths(given)):
            for file in list_photos(path) if path.is_dir() else [path]:
                names.append(strip_ending(file.relative_to(path).as_posix() if path.is_dir() else file.name))
                self._files[names[-1]] = file
        self.ids = tuple(names)
        check_unique(self.ids, "the list of photographs, endings aside,")

    def with_classes(self, classes: Sequence[str]) -> Photographs:
        """Return the same photographs with class names."""
        return Photographs(self.paths, classes)

    def labels(self, i: int) -> tuple[int, ...]:
        """Raise InputError: there are no labels."""
        self._check_index(i)
        raise InputError("these are photographs without image labels; give a data set with labels.")

    def photo(self, i: int) -> Image:
        """Load image i, upright RGB; see `SegmentationData.photo`."""
        return read_photo(self.photo_file(i))

    def mask(self, i: int) -> NDArray[np.uint8]:
        """Raise InputError: there are no masks."""
        self._check_index(i)
        raise InputError("these are photographs without masks.")

    def photo_file(self, i: int) -> Path:
        """Return the file of image i's photograph."""
        return self._files[self.ids[self._check_index(i)]]


def _find_paths(given: str | os.PathLike[str]) -> list[Path]:
    """Return the file or folder of this path, or those that fit it as a pattern."""
    path = Path(given).expanduser()
    found = [path] if path.exists() else [Path(name) for name in sorted(glob(str(path)))]
    if not found:
        raise InputError(f"there is no file or folder {str(given)!r}.")
    return found
