"""Find and read files, the same way for every data set that lies in files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from PIL import Image

from camplug.errors import InputError
from camplug.explain.photo import SUFFIXES, read_photo

MOST_CLASSES = 254  # 0 is background, 255 is ignored
ORIENTATION = 0x0112  # the EXIF tag


def resolve_folder(path: str | os.PathLike[str]) -> Path:
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


def strip_ending(name: str) -> str:
    """Return the name of an image file without its ending; dots that begin no such ending stay.

    >>> strip_ending("x/frame.0001.JPG"), strip_ending("v1.0.cam0")
    ('x/frame.0001', 'v1.0.cam0')
    """
    place = PurePosixPath(name)
    return str(place.with_suffix("")) if place.suffix.lower() in SUFFIXES else name


class ImageFiles:
    """Image files of a folder, found by name whatever their ending.

    Args:
        folder: the folder; names may lie in subfolders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> Path:
        """Return the file of a name: the very one if it is there, else one that differs in its ending only.

        The path of a file that is not there is returned, too, to be told when it is opened.
        """
        path = self.folder / name
        if path.is_file():
            return path
        there = self._list_files(path.parent)
        found = there.get(path.name) or there.get(strip_ending(path.name))
        return path if found is None else path.parent / found

    def _list_files(self, folder: Path) -> dict[str, str]:
        """Names of a folder's image files by the names without endings."""
        if folder not in self._found:
            names = sorted(os.listdir(folder), reverse=True) if folder.is_dir() else []
            images = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
            images.sort(key=lambda name: -SUFFIXES.index(PurePosixPath(name).suffix.lower()))  # the first ending wins
            self._found[folder] = {strip_ending(name): name for name in images}
        return self._found[folder]


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
