"""Label pictures with some of them corrected by hand."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
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
SHOWN_NAMES = 3


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
    def renumber(self, classes: Sequence[str], *, some: bool = False) -> CorrectedLabels:
        found, plain = (
            CorrectedLabels(self.path, self.corrected.path, self.repeat),
            super().renumber(classes, some=some),
        )
        found.names, found.count, found.order = plain.names, plain.count, plain.order
        found.corrected = self.corrected.renumber(classes)
        return found

    @override
    def load(self, name: str) -> NDArray[np.uint8]:
        return self.corrected.load(name) if name in self.names_of_images else super().load(name)

    def find_images(self, data: SegmentationData) -> list[int]:
        """Return the numbers of the corrected images; warn of label pictures of images outside the data.

        Raises:
            InputError: none is of an image of the data.
        """
        found = [i for i, name in enumerate(data.ids) if name in self.names_of_images]
        others = sorted(self.names_of_images - {*data.ids})
        named = ", ".join(map(repr, others[:SHOWN_NAMES])) + (" and so on" if len(others) > SHOWN_NAMES else "")
        if not found:
            raise InputError(
                f"no corrected label picture in {str(self.corrected.path)!r} is of an image of the data: there are "
                f"{named}, and the data has {data.ids[0]!r} for instance; give the data that was corrected."
            )
        if others:
            warnings.warn(
                f"{len(others)} of {len(self.names_of_images)} corrected label pictures in "
                f"{str(self.corrected.path)!r} are left out, since their images are not in the data: {named}.",
                stacklevel=2,
            )
        return found


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


def digest_corrected(folder: str | Path, ids: Collection[str] | None = None) -> str:
    """Compute a digest of the class names, image names and files of corrected label pictures.

    Args:
        folder: folder of the pictures.
        ids: names of the images that are trained on; None takes all pictures.

    Raises:
        InputError: see `list_corrected`.
    """
    labels = LabelFolder(folder)
    names = list_corrected(folder)
    kept = sorted(names if ids is None else names.intersection(ids))
    files = [[name, make_file_digest(labels.get_path(name), "labels")] for name in kept]
    return make_digest([describe_classes(labels.path), files])
