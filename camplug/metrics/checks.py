"""Checks of labels and maps before they are counted."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camplug.errors import InputError


def check_whole(value: Any, what: str) -> int:
    """Return `value` as int; `what` names it in the error.

    Raises:
        InputError: the value is no whole number.
    """
    try:
        return index(value)
    except TypeError as error:
        raise InputError(f"{what}={value!r}: give a whole number") from error


def check_num_classes(num_classes: int, ignore: int) -> tuple[int, int]:
    """Return both numbers as int.

    Raises:
        InputError: a number is not whole, there is no class, or `ignore` is a class.
    """
    num_classes, ignore = check_whole(num_classes, "num_classes"), check_whole(ignore, "ignore")
    if num_classes < 1:
        raise InputError(f"num_classes={num_classes}: give 1 or more, the background included (VOC: 21)")
    if 0 <= ignore < num_classes:
        raise InputError(
            f"ignore={ignore} is one of the classes 0 to {num_classes - 1}; give another value, such as -1"
        )
    return num_classes, ignore


def check_integers(values: Any, what: str) -> NDArray[np.integer[Any]]:
    """Return `values` as an integer array of the given type; empty arrays of any type become int64.

    Raises:
        InputError: the values are no integers.
    """
    array = np.asarray(values)
    if array.size == 0 and array.dtype != object:
        array = array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{what} is of type {array.dtype}; give an array of integers, such as uint8 or int64")
    return array


def check_labels(labels: NDArray[np.integer[Any]], what: str, num_classes: int, hint: str) -> NDArray[np.int64]:
    """Return labels as int64.

    Raises:
        InputError: a label is outside 0..num_classes-1; `what` and `hint` complete the message.
    """
    if labels.size:
        for value in (int(labels.min()), int(labels.max())):
            if not 0 <= value < num_classes:
                raise InputError(
                    f"{what} holds the label {value}; labels go from 0 to {num_classes - 1} "
                    f"(num_classes={num_classes}, background included){hint}"
                )
    return labels.astype(np.int64)


def check_truth(truth: NDArray[np.integer[Any]], num_classes: int, ignore: int) -> tuple[Any, NDArray[np.int64]]:
    """Return the mask of counted pixels (bool, shape of the truth), and their true labels [M] int64.

    Raises:
        InputError: a label is outside 0..num_classes-1.
    """
    counted = truth != ignore
    return counted, check_labels(truth[counted], "truth", num_classes, f", and {ignore} is left out")


def check_maps(maps: NDArray[Any]) -> None:
    """Check that maps are uint8, or floats in [0, 1] up to rounding.

    Raises:
        InputError: another type, NaN, or a value outside [0, 1].
    """
    if maps.dtype == np.uint8 or not maps.size:
        return
    if not np.issubdtype(maps.dtype, np.floating):
        raise InputError(f"maps are of type {maps.dtype}; give floats in [0, 1], or uint8, which means value / 255")
    low, high = float(maps.min()), float(maps.max())  # nan if any value is
    slack = 4 * float(np.finfo(maps.dtype).eps)  # rounding of a resize
    if np.isnan(low):
        raise InputError("the maps hold nan; give numbers in [0, 1] (a map without evidence is 0, not 0 / 0)")
    if low < -slack or high > 1 + slack:
        raise InputError(f"the maps go from {low:g} to {high:g}; divide each by its maximum, for values in [0, 1]")


def check_mergeable(counter: Any, other: Any, what: str) -> None:
    """Check that two counters have the same type, classes and `ignore`; `what` names them in the error.

    Raises:
        InputError: one of these differs.
    """
    kind = type(counter)
    if not isinstance(other, kind):
        raise InputError(f"add another {kind.__name__}, not a value of type {type(other).__name__}")
    if (counter.num_classes, counter.ignore) != (other.num_classes, other.ignore):
        raise InputError(
            f"one {what} has num_classes={counter.num_classes}, ignore={counter.ignore}, the other "
            f"num_classes={other.num_classes}, ignore={other.ignore}; merge counts of one dataset only"
        )


def check_thresholds(thresholds: ArrayLike) -> NDArray[np.float64]:
    """Return thresholds as an increasing grid in [0, 1).

    Raises:
        InputError: they are no list of increasing numbers from 0 to below 1.
    """
    grid = np.array(thresholds, np.float64)
    if grid.ndim != 1 or not grid.size:
        raise InputError(f"thresholds are {list(grid.shape)}; give a list of one or more numbers")
    if not (np.diff(grid) > 0).all() or not (grid[0] >= 0 and grid[-1] < 1):
        raise InputError(
            f"thresholds go from {grid[0]} to {grid[-1]}; give increasing numbers, each one once, from 0 to below 1"
        )
    return grid
