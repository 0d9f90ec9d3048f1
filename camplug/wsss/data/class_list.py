"""Read and check lists of class names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from camplug.errors import InputError
from camplug.wsss.data.read_files import MAX_CLASSES, check_unique, read_text

BACKGROUND = ("background", "_background_", "__background__")
IGNORED = ("__ignore__", "_ignore_")
SEPARATORS = re.compile(r"[\s,|/&+]+")  # separators that may stand between two labels


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names, one per line, the class of mask value 1 first.

    `__ignore__` and `background` (also `_background_`) may come first, as written by labelme2voc and others; they mean
    the values 255 and 0, and are not classes.

    Args:
        path: file.

    Raises:
        InputError: the file cannot be read, names a class twice, names the background after a class, or has too many.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    while lines and is_no_class(lines[0]):
        lines.pop(0)
    check_class_names(lines, repr(str(path)))
    return tuple(lines)


def is_no_class(name: str) -> bool:
    """Return whether a name stands for the background or for ignored pixels.

    >>> is_no_class("Background"), is_no_class("__ignore__"), is_no_class("cat")
    (True, True, False)
    """
    return name.lower() in (*BACKGROUND, *IGNORED)


def check_class_names(names: Sequence[str], where: str) -> None:
    """Check class names, and warn of names that differ by case only.

    Args:
        names: names of the foreground classes.
        where: source of the names in messages.

    Raises:
        InputError: a name occurs twice, means the background or holds control characters, or there are none or too
            many.
    """
    check_unique(names, where)
    wrong = next((name for name in names if is_no_class(name)), None)
    if wrong is not None:
        raise InputError(
            f"{where} has {wrong!r} among the classes; it is no class (masks hold 0 for the background and 255 for "
            "ignored pixels): leave it out, or put it first in a file of class names."
        )
    unreadable = next((name for name in names if not name.isprintable()), None)
    if unreadable is not None:
        raise InputError(f"{where} has the class {unreadable[:40]!r}, which holds line breaks or control characters.")
    if not 1 <= len(names) <= MAX_CLASSES:
        raise InputError(f"{where} has {len(names)} classes; 1 to {MAX_CLASSES} can be had.")
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            warnings.warn(f"{where} has the classes {other!r} and {name!r}, which differ by case only.", stacklevel=2)


def check_separated(names: Iterable[str], where: str) -> None:
    """Check that no label is several labels with a wrong separator, like "cat dog" beside "cat" and "dog".

    Args:
        names: all labels in use.
        where: source of the labels in messages.

    Raises:
        InputError: a label consists of several labels.
    """
    used = set(names)
    for name in sorted(used):
        words = [word for word in SEPARATORS.split(name) if word]
        beside = len(words) > 1 and set(words) <= used
        if beside or "|" in name:
            among = f" beside {' and '.join(map(repr, words))}" if beside else ""
            raise InputError(
                f"{where} has a label {name!r}{among}; separate labels by ';', or name all classes in classes.txt."
            )
