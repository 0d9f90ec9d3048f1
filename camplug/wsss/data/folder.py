"""A folder of one's own photographs with a file of labels."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.explain.photo import read_photo
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.data.files import MOST_CLASSES, check_size, check_unique, existing_folder, read_mask, read_text
from camplug.wsss.identity import file_digest

if TYPE_CHECKING:
    from PIL.Image import Image

LABEL_FILES = ("labels.csv", "labels.json")


class Folder(SegmentationData):
    """Photographs in images/ (or the folder itself), labels in labels.csv or labels.json, masks, if any, in masks/.

    The images are those that the labels name, in that order; photographs that it does not name are left out. An image
    may have no labels.

    - labels.csv, one row per image: either a header `image,labels`, with names separated by ";" (names may contain
      spaces), or a header `image,cat,dog,...`, with 0 or 1 below every class.
    - labels.json: `{"a.jpg": ["cat", "dog"], "b.jpg": []}`.
    - classes.txt, one name per line, gives the classes their order; without it they are sorted by name.
    - masks/: PNGs (palette or 8-bit grey) named as the photographs. As they hold classes by number, classes.txt must
      say which is which: the first line is number 1.

    Args:
        root: the folder.

    Raises:
        InputError: a file is missing or damaged, names a class that classes.txt does not, or an image twice; none of
            the photographs is there.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = existing_folder(root)
        self._photos = self.root / "images" if (self.root / "images").is_dir() else self.root
        self.has_masks = (self.root / "masks").is_dir()
        found = [self.root / name for name in LABEL_FILES if (self.root / name).is_file()]
        if len(found) != 1:
            raise InputError(
                f"{str(root)!r} has {'both' if found else 'neither'} labels.csv and labels.json; one it is."
            )
        path = found[0]
        labels = read_csv(path) if path.suffix == ".csv" else read_json(path)
        if not labels:
            raise InputError(f"{str(path)!r} lists no images.")
        self.classes = self._ordered(labels, path)
        index = {name: c for c, name in enumerate(self.classes)}
        self._labels = [tuple(sorted({index[name] for name in names})) for names in labels.values()]
        self._files = list(labels)
        self.ids = tuple(_id(name, path) for name in labels)
        check_unique(self.ids, f"{str(path)!r}, endings aside,")
        if not any((self._photos / name).is_file() for name in self._files):
            raise InputError(
                f"none of the images that {str(path)!r} names is in {str(self._photos)!r}; the first is "
                f"{self._files[0]!r}, and names are given with their endings."
            )

    def _ordered(self, labels: dict[str, list[str]], path: Path) -> tuple[str, ...]:
        used = sorted({name for names in labels.values() for name in names})
        listed = self.root / "classes.txt"
        if listed.is_file():
            classes = [line.strip() for line in read_text(listed).splitlines() if line.strip()]
            check_unique(classes, repr(str(listed)))
            unknown = sorted(set(used) - set(classes))
            if unknown:
                image = next(image for image, names in labels.items() if unknown[0] in names)
                raise InputError(f"{str(path)!r} names {unknown[0]!r} for {image!r}, which is not in {str(listed)!r}.")
        elif self.has_masks:
            raise InputError(
                f"{str(self.root)!r} has masks, which hold classes by number, and no classes.txt; it must name the "
                "classes one per line, number 1 first."
            )
        else:
            classes = used
            for name in used:  # "cat dog" beside "cat" and "dog" is two names with the wrong thing between them
                words = name.replace(",", " ").split()
                if len(words) > 1 and set(words) <= set(used):
                    raise InputError(
                        f"{str(path)!r} has a label {name!r} beside {' and '.join(map(repr, words))}; separate labels "
                        "by ';', or name all classes in classes.txt."
                    )
        if not 1 <= len(classes) <= MOST_CLASSES:
            raise InputError(f"{str(path)!r} has {len(classes)} classes; 1 to {MOST_CLASSES} can be had.")
        return tuple(classes)

    def labels(self, i: int) -> tuple[int, ...]:
        """The classes of image i, sorted; see `SegmentationData.labels`."""
        return self._labels[self._checked(i)]

    def photo(self, i: int) -> Image:
        """Image i, upright RGB; see `SegmentationData.photo`."""
        return read_photo(self._photo_path(i))

    def mask(self, i: int) -> NDArray[np.uint8]:
        """Image i's mask, uint8 [H,W]; see `SegmentationData.mask`."""
        if not self.has_masks:
            raise InputError(f"{str(self.root)!r} has no folder masks.")
        path = self._mask_path(i)
        mask = read_mask(path, len(self.classes))
        check_size(self._photo_path(i), (mask.shape[1], mask.shape[0]), f"the mask {str(path)!r}")
        return mask

    def photo_file(self, i: int) -> Path:
        """Return the file of image i's photograph."""
        return self._photo_path(i)

    def mask_digest(self, i: int) -> str:
        """Return a digest of the bytes of image i's mask."""
        if not self.has_masks:
            raise InputError(f"{str(self.root)!r} has no folder masks.")
        return file_digest(self._mask_path(i), "mask")

    def _photo_path(self, i: int) -> Path:
        return self._photos / self._files[self._checked(i)]

    def _mask_path(self, i: int) -> Path:
        return self.root / "masks" / f"{self.ids[self._checked(i)]}.png"


def read_csv(path: Path) -> dict[str, list[str]]:
    """Labels by image, from a table with the columns image and labels, or image and one 0/1 column per class.

    Raises:
        InputError: with the line, where one cannot be read.
    """
    rows = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    labels: dict[str, list[str]] = {}
    header: list[str] = []
    try:
        for cells in rows:
            row = [cell.strip() for cell in cells]
            if not any(row):
                continue
            where = f"{str(path)!r}, line {rows.line_num}"
            if not header:
                header = _header(row, where)
                continue
            if len(row) != len(header):
                raise InputError(f"{where} has {len(row)} cells, the header {len(header)}; several labels take ';'.")
            if not row[0] or row[0] in labels:
                raise InputError(f"{where} {f'has {row[0]!r} a second time' if row[0] else 'names no image'}.")
            labels[row[0]] = _names(header, row, where)
    except csv.Error as error:
        raise InputError(f"{str(path)!r}, line {rows.line_num} is not a row of a table ({error}).") from None
    return labels


def _header(row: list[str], where: str) -> list[str]:
    if row[0].lower() != "image" or len(row) < 2 or not all(row):
        raise InputError(f"{where}: the header is {','.join(row)!r}; it must be 'image,labels' or 'image,cat,dog,...'.")
    check_unique(row, f"{where}: the header")
    return row


def _names(header: list[str], row: list[str], where: str) -> list[str]:
    if [name.lower() for name in header[1:]] == ["labels"]:
        return [name.strip() for name in row[1].split(";") if name.strip()]
    wrong = [cell for cell in row[1:] if cell not in ("0", "1")]
    if wrong:
        raise InputError(f"{where} has {wrong[0]!r} below a class; 0 or 1 is allowed there.")
    return [name for name, cell in zip(header[1:], row[1:], strict=True) if cell == "1"]


def read_json(path: Path) -> dict[str, list[str]]:
    """Labels by image, from {"a.jpg": ["cat", "dog"]}.

    Raises:
        InputError: it is not JSON, or not of this form.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        check_unique((key for key, _ in pairs), repr(str(path)))
        return dict(pairs)

    try:
        labels = json.loads(read_text(path), object_pairs_hook=once)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} is damaged or not JSON ({error}).") from None
    form = 'it must hold {"a.jpg": ["cat", "dog"], ...}'
    if not isinstance(labels, dict):
        raise InputError(f"{str(path)!r} holds a {type(labels).__name__}; {form}.")
    for image, names in labels.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise InputError(f"{str(path)!r} has {names!r} for {image!r}; {form}.")
    return {image: [name.strip() for name in names] for image, names in labels.items()}


def _id(name: str, path: Path) -> str:
    """A photograph's path without its ending; no way out of the folder, as results are named by it."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or not place.name:
        raise InputError(f"{str(path)!r} names {name!r}; images are named within their folder.")
    return place.with_suffix("").as_posix()
