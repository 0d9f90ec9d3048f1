"""Shapes of one class each, cut from label maps and painted into them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.show.labels import format_hex, make_class_colors
from camplug.wsss.data.dataset import IGNORE
from camplug.wsss.data.masks import MaskCode
from camplug.wsss.data.read_files import read_text

BACKGROUND_NAME, IGNORED_NAME = "_background_", "__ignore__"  # as in labelme's own converters
FARTHEST = 1e5  # pixels; farther corners are damage


class LabelledImage(NamedTuple):
    """File name of a photograph and its label map, uint8 [H,W]: 0 background, c + 1 for class c, 255 ignored."""

    file: str
    labels: NDArray[np.uint8]


class Shape(NamedTuple):
    """Class name and mask, bool [H,W]."""

    name: str
    mask: NDArray[np.bool_]


def cut_shapes(labels: NDArray[np.uint8], names: Sequence[str]) -> list[Shape]:
    """Cut a label map into one shape per class that it shows; ignored pixels are named `__ignore__`.

    Args:
        labels: label map [H,W].
        names: class names, without the background.

    Raises:
        InputError: a label is no class.
    """
    shown = [int(value) for value in np.unique(labels) if value != 0]
    return [Shape(get_name(value, names), labels == value) for value in shown]


def get_name(value: int, names: Sequence[str]) -> str:
    """Return the name of a label.

    Raises:
        InputError: the label is no class.
    """
    if value in (0, IGNORE):
        return IGNORED_NAME if value else BACKGROUND_NAME
    if value > len(names):
        raise InputError(f"there is the label {value}, and {len(names)} class names; give names of all classes.")
    return names[value - 1]


def list_colors(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return class names with the colours of `camplug segment --overlays`, then `__ignore__` in grey."""
    colours = [format_hex(colour) for colour in make_class_colors(len(names))]
    return [*zip(names, colours, strict=True), (IGNORED_NAME, "#808080")]


def paint_shapes(shapes: Sequence[Shape], size: tuple[int, int], names: Sequence[str], where: str) -> NDArray[np.uint8]:
    """Paint shapes one over the other, the last one on top.

    Args:
        shapes: shapes, lowest first; the names of the background and of ignored pixels are allowed, too.
        size: height and width.
        names: class names, without the background.
        where: file in messages.

    Returns:
        Label map, uint8 [H,W].

    Raises:
        InputError: a shape is of an unknown class.
    """
    code, labels = MaskCode(names), np.zeros(size, np.uint8)
    for shape in shapes:
        labels[shape.mask] = code.get_mask_value(shape.name, where)
    return labels


def fill_polygon(points: Any, size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """Compute the pixels whose centres lie inside a polygon, by the even-odd rule.

    Args:
        points: corners x, y [P,2] in pixels; the pixel in column x and row y covers x to x + 1 and y to y + 1.
        size: height and width.
        where: file in messages.

    Returns:
        Mask, bool [H,W].

    Raises:
        InputError: the corners are not at least three pairs of numbers near the image.
    """
    try:
        corners = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        corners = np.empty(0)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not (np.abs(corners) < FARTHEST).all():
        raise InputError(f"{where} has a polygon that is not three or more pairs of coordinates near the image.")
    found: NDArray[np.bool_] = import_skimage("draw").polygon2mask(size, corners[:, ::-1] - 0.5)
    return found


def import_skimage(name: str) -> Any:
    """Import a module of scikit-image.

    Raises:
        InputError: scikit-image is missing.
    """
    try:
        return import_module(f"skimage.{name}")
    except ImportError:
        raise InputError('polygons need the package scikit-image: pip install "camplug[train]".') from None


def encode_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of runs outside and inside of a mask in turn, row by row, beginning outside.

    >>> encode_runs(np.array([[True, False], [False, True]]))
    [0, 1, 2, 1]
    """
    flat = np.concatenate([[False], mask.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(n) for n in np.diff(np.concatenate([[0], edges, [mask.size]]))]


def decode_runs(runs: Sequence[int], size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """Return the mask [H,W] of `encode_runs`.

    Raises:
        InputError: the runs do not add up to H * W.
    """
    if sum(runs) != size[0] * size[1] or min(runs, default=0) < 0:
        raise InputError(f"{where} has a mask whose runs add up to {sum(runs)} pixels, not {size[0] * size[1]}.")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)


def read_json_file(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing, damaged or no JSON.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} is damaged or not JSON ({error}).") from None
