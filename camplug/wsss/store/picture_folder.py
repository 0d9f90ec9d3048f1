"""Folders of PNGs, one per image, with the digests of their inputs in a text of the file."""

from __future__ import annotations

from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typing_extensions import override

from camplug.wsss.store.result_folder import ResultFolder

MADE_OF = "made_of"  # key of the text with the digests
END = b"IEND\xaeB`\x82"  # last bytes of a complete PNG


class PictureFolder(ResultFolder[NDArray[np.uint8]]):
    """Folder of grey pictures, uint8 [H,W].

    Args:
        path: folder; `prepare` creates it.
    """

    suffix = ".png"

    def make_picture(self, result: NDArray[np.uint8]) -> Image.Image:
        """Make the picture of a result."""
        return Image.fromarray(result)

    @override
    def is_whole(self, name: str) -> bool:
        try:
            with open(self.get_path(name), "rb") as file:
                file.seek(-len(END), 2)
                return file.read() == END
        except OSError:  # missing, or too short
            return False

    @override
    def read_digest_text(self, name: str) -> str | None:
        with Image.open(self.get_path(name)) as picture:  # reads the header only
            found = picture.info.get(MADE_OF)
        return found if isinstance(found, str) else None

    @override
    def write(self, result: NDArray[np.uint8], file: IO[bytes], digest_text: str) -> None:
        text = PngInfo()
        text.add_text(MADE_OF, digest_text)
        self.make_picture(result).save(file, "PNG", pnginfo=text)
