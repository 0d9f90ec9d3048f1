"""A folder of label pictures: palette PNGs that any viewer shows in VOC's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.class_names import order_in, renumbered_labels
from camplug.wsss.data import voc_palette
from camplug.wsss.data.files import MOST_CLASSES, read_mask
from camplug.wsss.results import SETTINGS, ResultFolder

END = b"IEND\xaeB`\x82"  # what every whole PNG ends with


class LabelFolder(ResultFolder[NDArray[np.uint8]]):
    """A folder of labels, uint8 [H,W]: 0 background, c + 1 for class c, 255 ignored; read by `read_mask`.

    Args:
        path: the folder.
    """

    what = "labels"
    suffix = ".png"
    names: tuple[str, ...] = ()  # of the classes in the files
    order: list[int] | None = None  # for each class of the data its number in the files; None where they are the same
    count = MOST_CLASSES  # of the classes that may be in a file

    def numbered_as(self, classes: Sequence[str]) -> LabelFolder:
        """Return the folder with labels in the class numbers of a data set, matched by name.

        Args:
            classes: names of the data's classes; also those of a folder that does not say its own.

        Raises:
            InputError: the folder says which classes it has, and one of the data is not among them.
        """
        found = LabelFolder(self.path)
        settings = self.settings() if (self.path / SETTINGS).exists() else {}
        order = order_in(settings, classes, "the folder of labels")
        found.names = tuple(classes if order is None else settings["classes"])
        found.count = len(found.names)
        if order is not None and found.names != tuple(classes):
            found.order = order
        return found

    def load(self, name: str) -> NDArray[np.uint8]:
        """Read the labels of an image, [H,W].

        Raises:
            InputError: they are missing or damaged, or show a class that the data has not.
        """
        labels = read_mask(self.file(name), self.count)
        if self.order is None:
            return labels
        try:
            return renumbered_labels(labels, self.names, self.order)
        except InputError as error:
            raise InputError(f"{str(self.file(name))!r}: {error}") from None

    @override
    def prepare(self, settings: Mapping[str, Any]) -> None:
        super().prepare({"holds": self.what, **settings})  # tells it from a folder of seeds

    @override
    def holds(self, name: str) -> bool:
        try:
            with open(self.file(name), "rb") as file:
                file.seek(-len(END), 2)
                return file.read() == END
        except OSError:  # missing, or too short
            return False

    @override
    def write(self, result: NDArray[np.uint8], file: IO[bytes]) -> None:
        picture = Image.fromarray(result)
        picture.putpalette(voc_palette().tobytes())
        picture.save(file, "PNG")
