"""Formats of annotation tools by name, and the photographs that their files speak of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from camplug.errors import InputError
from camplug.images.photo import list_photos, read_photo
from camplug.wsss.data.read_files import strip_ending
from camplug.wsss.exchange.coco_file import read_coco, write_coco
from camplug.wsss.exchange.cvat import read_cvat, write_cvat
from camplug.wsss.exchange.label_studio import read_label_studio, write_label_studio
from camplug.wsss.exchange.labelme import read_labelme, write_labelme
from camplug.wsss.exchange.shapes import LabelledImage

# names with the functions that write and read
FORMATS: dict[str, tuple[Any, Any]] = {
    "coco": (write_coco, read_coco),
    "cvat": (write_cvat, read_cvat),
    "label-studio": (write_label_studio, read_label_studio),
    "labelme": (write_labelme, read_labelme),
}
UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # Label Studio's prefix of uploaded files


def write_label_maps(
    images: Iterable[LabelledImage], names: Sequence[str], out: Path, kind: str, tolerance: float = 0.0
) -> None:
    """Write label maps as the file (LabelMe: the folder of files) of an annotation tool.

    Args:
        images: photographs' names and label maps.
        names: class names, without the background.
        out: file or folder to write.
        kind: coco, cvat, label-studio or labelme.
        tolerance: distance in pixels within which corners of LabelMe's polygons are left out; 0 keeps every pixel.

    Raises:
        InputError: there is no such format, a label is no class, or a file cannot be written.
    """
    write = get_format(kind)[0]
    if tolerance < 0:
        raise InputError(f"tolerance={tolerance}; give 0 or more pixels.")
    (partial(write, tolerance=tolerance) if kind == "labelme" else write)(images, names, out)


def read_label_maps(file: Path, names: Sequence[str], photos: Path, kind: str) -> Iterator[LabelledImage]:
    """Read the label maps of an annotation tool; each has the name of its photograph below `photos`.

    Args:
        file: file; LabelMe: file or folder.
        names: class names, without the background.
        photos: folder of the photographs.
        kind: coco, cvat, label-studio or labelme.

    Raises:
        InputError: there is no such format, the file is missing, damaged or of other classes, a photograph is not
            there, or is there twice.
    """
    read = get_format(kind)[1]
    if not file.exists():
        raise InputError(f"there is no file {str(file)!r}.")
    folder = PhotoFolder(photos)
    done: set[str] = set()
    for image in read(file, names, folder.get_size):
        name = folder.find(image.file)
        if name in done:
            raise InputError(f"{str(file)!r} has the photograph {name!r} twice; keep one of them.")
        done.add(name)
        yield LabelledImage(name, image.labels)


def get_format(kind: str) -> tuple[Any, Any]:
    """Return the functions that write and read a format.

    Raises:
        InputError: there is none of this name.
    """
    if kind not in FORMATS:
        raise InputError(f"there is no format {kind!r}; choose {', '.join(FORMATS)}.")
    return FORMATS[kind]


class PhotoFolder:
    """Photographs of a folder, found by the names that annotation tools give them.

    Args:
        folder: folder; photographs may lie in subfolders.

    Raises:
        InputError: there is no such folder, or it holds no photographs.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"there is no folder {str(folder)!r}; give that of the photographs.")
        self.folder = folder
        self.names = {strip_ending(p.relative_to(folder).as_posix()): p for p in list_photos(folder)}

    def find(self, given: str) -> str:
        """Return the name, without ending, of the photograph whose path fits the end of a given path.

        Raises:
            InputError: there is none.
        """
        *folders, last = strip_ending(given.replace("\\", "/")).split("/")
        for name in (last, UPLOADED.sub("", last)):
            parts = [*folders, name]
            for start in range(len(parts)):  # the longest path comes first
                if (found := "/".join(parts[start:])) in self.names:
                    return found
        raise InputError(f"{given!r} is none of the photographs in {str(self.folder)!r}.")

    def get_size(self, given: str) -> tuple[int, int]:
        """Return the height and width of a photograph, upright."""
        width, height = read_photo(self.names[self.find(given)]).size
        return height, width
