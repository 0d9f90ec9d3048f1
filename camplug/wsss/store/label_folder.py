"""Folders of label pictures: palette PNGs in VOC's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.class_names import match_classes, match_known_classes, renumber_labels
from camplug.wsss.data import make_voc_palette
from camplug.wsss.data.masks import read_mask
from camplug.wsss.data.read_files import MAX_CLASSES
from camplug.wsss.store.identity import Inputs
from camplug.wsss.store.picture_folder import PictureFolder
from camplug.wsss.store.settings_folder import SETTINGS


class LabelFolder(PictureFolder):
    """Folder of labels, uint8 [H,W]: 0 background, c + 1 for class c, 255 ignored.

    Args:
        path: folder; `prepare` creates it.
    """

    what = "labels"
    names: tuple[str, ...] = ()  # class names of the files
    order: list[int | None] | None = None  # number in the files of each class of the data; None if they are equal
    count = MAX_CLASSES  # number of classes that files may have

    def renumber(self, classes: Sequence[str], *, some: bool = False) -> LabelFolder:
        """Return the folder with labels in the class numbers of a data set, matched by name.

        Args:
            classes: class names of the data; a folder without names is taken to have these.
            some: permission to lack classes of the data, with a warning.

        Raises:
            InputError: the folder has class names, and one of the data (with `some`, each) is not among them.
        """
        found = LabelFolder(self.path)
        settings = self.read_settings() if (self.path / SETTINGS).exists() else {}
        names = settings.get("classes")
        found.names = tuple(classes if names is None else names)
        found.count = len(found.names)
        if found.names != tuple(classes):
            match = match_known_classes if some else match_classes
            found.order = [*match(found.names, classes, "the folder of labels")]
        return found

    def load(self, name: str) -> NDArray[np.uint8]:
        """Read the labels of an image, [H,W].

        Raises:
            InputError: the file is missing or damaged, or shows a class that the data lacks.
        """
        labels = read_mask(self.get_path(name), self.count)
        if self.order is None:
            return labels
        try:
            return renumber_labels(labels, self.names, self.order)
        except InputError as error:
            raise InputError(f"{str(self.get_path(name))!r}: {error}") from None

    @override
    def prepare(self, settings: Mapping[str, Any], *, overwrite: bool = False, inputs: Inputs | None = None) -> Self:
        settings = {"holds": self.what, **settings}  # unlike a folder of seeds
        return super().prepare(settings, overwrite=overwrite, inputs=inputs)

    @override
    def make_picture(self, result: NDArray[np.uint8]) -> Image.Image:
        """Make a picture in VOC's colours."""
        picture = super().make_picture(result)
        picture.putpalette(make_voc_palette().tobytes())
        return picture
