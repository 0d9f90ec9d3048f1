"""Read masks and lists, and check them, the same way for every data set that lies in files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camplug.errors import InputError
from camplug.explain.photo import read_photo

MOST_CLASSES = 254  # 0 is background, 255 is ignored
ORIENTATION = 0x0112  # the EXIF tag


def existing_folder(path: str | os.PathLike[str]) -> Path:
    """The path, with ~ expanded, if it is a folder.

    Raises:
        InputError: it is not.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(f"{str(path)!r} is {'a file' if folder.exists() else 'missing'}; give the data set's folder.")
    return folder


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without the byte-order mark that spreadsheets put first.

    Raises:
        InputError: the file cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror or error}).") from None
    except UnicodeDecodeError:
        raise InputError(f"{str(path)!r} is not a text file in UTF-8.") from None


def check_unique(names: Iterable[str], called: str) -> None:
    """Refuse a list that names something twice.

    Raises:
        InputError: with the first name that comes again.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{called} has {name!r} twice; each may be there once.")
        seen.add(name)


def read_mask(path: Path, classes: int) -> NDArray[np.uint8]:
    """A mask PNG's class numbers, uint8 [H,W]: 0 background, 1 to `classes`, 255 ignored.

    Palette PNGs give their indices, not their colours.

    Raises:
        InputError: the file is missing, damaged, not a palette or 8-bit grey PNG, or holds other numbers.
    """
    try:
        with Image.open(path) as image:
            kind = f"{image.mode} {image.format}"
            # Pillow stretches grey of 1, 2 or 4 bits to 0..255, which would make other classes of it
            stretched = image.mode == "L" and any(tile[3] != "L" for tile in image.tile)
            fits = kind in ("P PNG", "L PNG") and not stretched
            mask = np.array(image) if fits else np.zeros((0, 0), np.uint8)
    except FileNotFoundError:
        raise InputError(f"there is no mask {str(path)!r}.") from None
    except Exception as error:  # what decoders raise on damaged files is anybody's guess
        raise InputError(f"the mask {str(path)!r} is damaged or cannot be read ({error}).") from None
    if not fits:
        depth = " of fewer than 8 bits" if stretched else ""
        raise InputError(
            f"the mask {str(path)!r} is a {kind}{depth}; save class numbers as a palette PNG or an 8-bit grey PNG."
        )
    other = mask[(mask > classes) & (mask != 255)]
    if other.size:
        raise InputError(
            f"the mask {str(path)!r} holds the value {other.min()}; allowed are 0 (background), 1 to {classes} (the "
            "classes) and 255 (ignored)."
        )
    return mask


def check_size(photo: Path, size: tuple[int, int], called: str) -> None:
    """Refuse a mask that has not its upright photograph's size (width, height).

    Raises:
        InputError: the sizes differ, with both; or the photograph cannot be read.
    """
    try:
        with Image.open(photo) as image:  # the header alone, where it settles the question
            if image.size == size and image.getexif().get(ORIENTATION, 1) == 1:
                return
    except Exception:
        pass
    width, height = read_photo(photo).size
    if (width, height) != size:
        raise InputError(
            f"{called} is {size[0]}x{size[1]}, but its photograph {str(photo)!r} is {width}x{height} (upright); a mask "
            "must have the size of the upright photograph."
        )
