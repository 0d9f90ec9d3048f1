"""Parse the classes given by a caller: indices, lists of indices, and label matrices (0 and 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from camplug.errors import TargetError


class Against(int):
    """Class index whose score is negated, to explain the evidence against the class.

    >>> Against(3)
    Against(3)
    """

    def __repr__(self) -> str:
        return f"Against({int(self)})"


class ClassIndex(int):
    """Class index that is no label: rows of these are not read as rows of 0 and 1."""


def mark_index(value: Any) -> Any:
    """Return an integer as a `ClassIndex`, and any other value, such as `Against`, as it is."""
    return ClassIndex(value) if type(value) is int else value


def list_classes(classes: Any, n: int, count: Callable[[], int] | None = None) -> tuple[list[list[Any]], bool]:
    """Return one list of classes per image, and whether the caller gave one list per image.

    A label matrix [N,C] (bool, or 0 and 1) gives the classes that are 1 in each row. Class indices are not checked
    against the model.

    Args:
        classes: one class, n classes, n lists of classes, or a label matrix.
        n: the number of images.
        count: function that returns the number of the model's classes; called only to interpret a matrix of 0 and 1.

    Raises:
        TargetError: not one entry per image, single classes and lists mixed, or labels of the wrong width.
    """
    numeric = isinstance(classes, Tensor) or hasattr(classes, "dtype")
    if numeric:
        classes = classes.tolist()
    if not isinstance(classes, (list, tuple, range)) and not hasattr(classes, "__len__"):
        return [[classes] for _ in range(n)], False
    entries = [e.tolist() if isinstance(e, Tensor) or hasattr(e, "dtype") else e for e in classes]
    if n == 1 and len(entries) > 1 and is_label_vector(entries):
        entries = [entries]
    if len(entries) != n:
        raise TargetError(
            f"{len(entries)} entries in classes for {n} images; give one class for all, one per image, or one list per "
            f"image (several classes of one image: [[...]])."
        )
    lists = [hasattr(e, "__len__") and not isinstance(e, str) for e in entries]
    if any(lists) and not all(lists):
        raise TargetError("classes mixes single classes and lists; give one class per image, or one list per image.")
    per_image = all(lists) and n > 0
    if per_image and _may_be_labels(entries):
        return _read_labels(entries, numeric, count), True
    return [list(e) if per_image else [e] for e in entries], per_image


def is_label_vector(row: Any) -> bool:
    """Return whether a list of 0 and 1 must be the labels of one image: bools, floats, or more than two numbers.

    More than two integers of 0 and 1 are no list of classes, since it would repeat one.

    >>> is_label_vector([0, 1, 0]), is_label_vector([0, 1]), is_label_vector([True, False]), is_label_vector([0, 2, 0])
    (True, False, True, False)
    """
    return len(row) > 0 and all(_is_label(v) for v in row) and (len(row) > 2 or not all(type(v) is int for v in row))


def _is_label(value: Any) -> bool:
    return type(value) in (bool, int, float) and value in (0, 1)


def _may_be_labels(rows: list[Any]) -> bool:
    """Return whether the rows form a matrix of 0 and 1."""
    width = len(rows[0])
    return width > 0 and all(len(row) == width and all(_is_label(v) for v in row) for row in rows)


def _read_labels(rows: list[Any], numeric: bool, count: Callable[[], int] | None) -> list[list[int]]:
    """Return the classes of rows of 0 and 1, which are labels or lists of the classes 0 and 1."""
    width = len(rows[0])
    is_certain = any(is_label_vector(row) for row in rows)
    listed = [list(row) for row in rows]
    has_repeats = any(len(set(row)) < width for row in rows)  # unlikely in a list of classes
    if not is_certain and not numeric and not has_repeats:
        return listed
    classes = width if count is None else count()
    if classes != width:
        if not is_certain:
            return listed
        raise TargetError(
            f"classes is a matrix of 0 and 1 [{len(rows)},{width}], and the model has {classes} classes; labels need "
            f"one column per class, [{len(rows)},{classes}]."
        )
    if not is_certain and not has_repeats:
        raise TargetError(
            f"classes is a matrix [{len(rows)},{width}] of 0 and 1, which can be labels of the model's {width} classes "
            "or their indices; give labels as bool, or indices as lists ([[0], ...])."
        )
    return [[c for c, label in enumerate(row) if label] for row in rows]
