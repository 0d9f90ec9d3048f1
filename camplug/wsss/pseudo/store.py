"""A folder of label pictures: palette PNGs that any viewer shows in VOC's colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from camplug.wsss.data import voc_palette
from camplug.wsss.results import ResultFolder

END = b"IEND\xaeB`\x82"  # what every whole PNG ends with


class LabelFolder(ResultFolder[NDArray[np.uint8]]):
    """A folder of labels, uint8 [H,W]: 0 background, c + 1 for class c, 255 ignored; read by `read_mask`.

    Args:
        path: the folder.
    """

    what = "labels"
    suffix = ".png"

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
