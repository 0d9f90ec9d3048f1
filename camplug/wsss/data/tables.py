"""Read image-level labels from tables."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from camplug.errors import InputError
from camplug.wsss.data.class_list import is_no_class
from camplug.wsss.data.read_files import check_unique, read_text

LABEL_FILES = ("labels.csv", "labels.json")
IMAGE_HEADERS = ("image", "images", "filename", "file", "file_name", "name", "id")  # headers of the first column
LABEL_HEADERS = ("labels", "label", "classes", "class")


def read_labels(path: Path) -> dict[str, list[str]]:
    """Read class names by image from a .csv or .json file, without the background.

    Raises:
        InputError: the file cannot be read, has another format, or lists no images.
    """
    if path.suffix.lower() in (".npy", ".npz"):
        raise InputError(
            f"{str(path)!r} may hold code that runs when it is read; make a labels.json of it once, where NAMES are "
            'the classes in their order: python -c "import json, numpy; '
            f"a = numpy.load({path.name!r}, allow_pickle=True).item(); "
            "json.dump({str(k): [NAMES[c] for c in v.nonzero()[0]] for k, v in a.items()}, open('labels.json', 'w'))\"."
        )
    found = read_json(path) if path.suffix.lower() == ".json" else read_csv(path)
    if not found:
        raise InputError(f"{str(path)!r} lists no images.")
    return {image: [name for name in names if not is_no_class(name)] for image, names in found.items()}


def read_csv(path: Path) -> dict[str, list[str]]:
    """Read labels by image from a table with the columns image and labels, or image and one 0/1 column per class.

    Raises:
        InputError: a line cannot be read.
    """
    rows = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True, strict=True)
    labels: dict[str, list[str]] = {}
    header: list[str] = []
    try:
        for cells in rows:
            row = [cell.strip() for cell in cells]
            if not any(row):
                continue
            where = f"{str(path)!r}, line {rows.line_num}"
            if not header:
                header = _check_header(row, where)
                continue
            if len(row) != len(header):
                raise InputError(f"{where} has {len(row)} cells, the header {len(header)}; several labels take ';'.")
            if not row[0] or row[0] in labels:
                raise InputError(f"{where} {f'has {row[0]!r} a second time' if row[0] else 'names no image'}.")
            labels[row[0]] = _parse_labels(header, row, where)
    except csv.Error as error:
        raise InputError(f"{str(path)!r}, line {rows.line_num} is not a row of a table ({error}).") from None
    return labels


def _check_header(row: list[str], where: str) -> list[str]:
    if row[0].lower() not in IMAGE_HEADERS or len(row) < 2 or not all(row):
        raise InputError(
            f"{where}: the header is {','.join(row)!r}; it must be 'image,labels' (labels separated by ';') or "
            "'image,cat,dog,...' (0 or 1 below every class)."
        )
    check_unique(row, f"{where}: the header")
    return row


def _parse_labels(header: list[str], row: list[str], where: str) -> list[str]:
    if len(header) == 2 and header[1].lower() in LABEL_HEADERS:
        return [name.strip() for name in row[1].split(";") if name.strip()]
    wrong = [cell for cell in row[1:] if cell not in ("0", "1")]
    if wrong:
        raise InputError(f"{where} has {wrong[0]!r} below a class; 0 or 1 is allowed there.")
    return [name for name, cell in zip(header[1:], row[1:], strict=True) if cell == "1"]


def read_json(path: Path) -> dict[str, list[str]]:
    """Read labels by image from {"a.jpg": ["cat", "dog"]}.

    Raises:
        InputError: the file is not JSON, or has another format.
    """

    def refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        check_unique((key for key, _ in pairs), repr(str(path)))
        return dict(pairs)

    try:
        labels = json.loads(read_text(path), object_pairs_hook=refuse_repeated_keys)
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
