"""Label pictures with some of them corrected by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.identity import make_digest, make_file_digest
from camplug.wsss.store.label_folder import LabelFolder
from camplug.wsss.train.folder import describe_classes

REPEAT = 4  # draws of a corrected image per epoch


class CorrectedLabels(LabelFolder):
    """Folder of labels whose images with a corrected label picture take that one.

    Args:
        path: folder of labels.
        corrected: folder of the corrected ones, as `camplug import-labels` writes it.
        repeat: draws of a corrected image per epoch, each with another crop; other images are drawn once.

    Raises:
        InputError: there is no such folder, it holds no label pictures, or `repeat` is below 1.
    """

    def __init__(self, path: str | Path, corrected: str | Path, repeat: int = REPEAT) -> None:
        super().__init__(path)
        check_repeat(repeat)
        self.corrected, self.repeat = LabelFolder(corrected), repeat
        self.names_of_images = list_corrected(corrected)

    @override
    def get_path(self, name: str) -> Path:
        return self.corrected.get_path(name) if name in self.names_of_images else super().get_path(name)

    @override
    def renumber(self, classes: Sequence[str]) -> CorrectedLabels:
        found, plain = CorrectedLabels(self.path, self.corrected.path, self.repeat), super().renumber(classes)
        found.names, found.count, found.order = plain.names, plain.count, plain.order
        found.corrected = self.corrected.renumber(classes)
        return found

    @override
    def load(self, name: str) -> NDArray[np.uint8]:
        return self.corrected.load(name) if name in self.names_of_images else super().load(name)

    def find_images(self, data: SegmentationData) -> list[int]:
        """Return the numbers of the corrected images.

        Raises:
            InputError: a corrected label picture is of no image of the data.
        """
        unknown = sorted(self.names_of_images - {*data.ids})
        if unknown:
            raise InputError(
                f"{str(self.corrected.path)!r} has labels of {unknown[0]!r}, which is no image of the data; remove "
                f"{'it' if len(unknown) == 1 else f'these {len(unknown)}'}, or give the data that hold it."
            )
        return [i for i, name in enumerate(data.ids) if name in self.names_of_images]


def check_repeat(repeat: int) -> None:
    """Raise `InputError` for less than one draw of a corrected image per epoch."""
    if repeat < 1:
        raise InputError(f"corrected_repeat={repeat}; give 1 or more draws per epoch.")


def list_corrected(folder: str | Path) -> frozenset[str]:
    """Return the names of the images with a label picture in a folder.

    Raises:
        InputError: there is no such folder, or it holds none.
    """
    path = Path(folder)
    names = frozenset(p.relative_to(path).with_suffix("").as_posix() for p in path.rglob("*.png"))
    if not names:
        raise InputError(f"there is no folder with corrected label pictures {str(folder)!r}.")
    return names


def digest_corrected(folder: str | Path) -> str:
    """Compute a digest of the class names, image names and files of corrected label pictures.

    Raises:
        InputError: see `list_corrected`.
    """
    labels = LabelFolder(folder)
    names = sorted(list_corrected(folder))
    files = [[name, make_file_digest(labels.get_path(name), "labels")] for name in names]
    return make_digest([describe_classes(labels.path), files])
