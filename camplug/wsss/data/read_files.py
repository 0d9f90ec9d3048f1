"""Find and read files of data sets."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from PIL import Image

from camplug.errors import InputError
from camplug.images.photo import ORIENTATION, SUFFIXES, read_photo

MAX_CLASSES = 254  # masks use 0 for background, 255 for ignored


def resolve_folder(path: str | os.PathLike[str]) -> Path:
    """Return the path of a folder, with ~ expanded.

    Raises:
        InputError: it is not a folder.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(f"{str(path)!r} is {'a file' if folder.exists() else 'missing'}; give the data set's folder.")
    return folder


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte-order mark.

    Raises:
        InputError: the file cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror or error}).") from None
    except UnicodeDecodeError:
        raise InputError(f"{str(path)!r} is not a text file in UTF-8.") from None


def check_unique(names: Iterable[str], what: str) -> None:
    """Check that names are unique.

    Raises:
        InputError: a name occurs twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{what} has {name!r} twice; each may be there once.")
        seen.add(name)


def strip_ending(name: str) -> str:
    """Return the name of an image file without its ending; other dots stay.

    >>> strip_ending("x/frame.0001.JPG"), strip_ending("v1.0.cam0")
    ('x/frame.0001', 'v1.0.cam0')
    """
    place = PurePosixPath(name)
    return str(place.with_suffix("")) if place.suffix.lower() in SUFFIXES else name


class ImageFiles:
    """Image files of a folder, found by name with any ending.

    Args:
        folder: folder; names may contain subfolders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> Path:
        """Return the file of a name, or one that differs in its ending only.

        If neither exists, the path is returned nevertheless, and opening it raises the error.
        """
        path = self.folder / name
        if path.is_file():
            return path
        there = self._list_files(path.parent)
        found = there.get(path.name) or there.get(strip_ending(path.name))
        return path if found is None else path.parent / found

    def _list_files(self, folder: Path) -> dict[str, str]:
        """Return the names of a folder's image files by their names without endings."""
        if folder not in self._found:
            names = sorted(os.listdir(folder), reverse=True) if folder.is_dir() else []
            images = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
            # the first of `SUFFIXES` takes precedence
            images.sort(key=lambda name: -SUFFIXES.index(PurePosixPath(name).suffix.lower()))
            self._found[folder] = {strip_ending(name): name for name in images}
        return self._found[folder]


def check_size(photo: Path, size: tuple[int, int], what: str) -> None:
    """Check that a mask has the (width, height) of its upright photograph.

    Raises:
        InputError: the sizes differ, or the photograph cannot be read.
    """
    try:
        with Image.open(photo) as image:  # reading the header is often enough
            if image.size == size and image.getexif().get(ORIENTATION, 1) == 1:
                return
    except Exception:
        pass
    width, height = read_photo(photo).size
    if (width, height) != size:
        raise InputError(
            f"{what} is {size[0]}x{size[1]}, but its photograph {str(photo)!r} is {width}x{height} (upright); a mask "
            "must have the size of the upright photograph."
        )
