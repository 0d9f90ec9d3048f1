"""Find the part of a photograph that a custom transform shows, by transforming images of the coordinates."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Box(NamedTuple):
    """Region of a photograph shown by the model's input, in its pixels; right and bottom are exclusive.

    It is smaller than a cropped photograph, and larger than a padded one.
    """

    left: float
    top: float
    right: float
    bottom: float


def find_outside(box: Box, width: int, height: int) -> NDArray[np.bool_]:
    """Return the pixels [H,W] of a photograph of this size whose middle is outside of a box.

    >>> find_outside(Box(1, 0, 3, 1), 3, 1).tolist()
    [[True, False, False]]
    """
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside: NDArray[np.bool_] = ((y >= box.top) & (y < box.bottom))[:, None] & ((x >= box.left) & (x < box.right))
    return ~inside


def scale_size(size: tuple[int, int], scale: float, multiple: int = 1) -> tuple[int, int]:
    """Return a size (height, width) times a factor, each side rounded to a multiple, at least one of them.

    >>> scale_size((30, 20), 1.5), scale_size((30, 20), 1.5, 14), scale_size((30, 20), 0.1, 14)
    ((45, 30), (42, 28), (14, 14))
    """
    height, width = (max(1, round(side * scale / multiple)) * multiple for side in size)
    return height, width


def find_box(transform: Callable[[Any], Any], size: tuple[int, int]) -> Box:
    """Find the region of a photograph of this size (width, height) that a transform shows, including padding.

    Images that encode the coordinates go through the transform (`_find_by_ramps`, `_find_by_parabolas`). Supports
    resizing, cropping and padding in any order; warns if the transform rotates, mirrors, reflects or is random.
    """
    from PIL import Image as pil

    width, height = size

    def apply(pixels: np.ndarray[Any, Any]) -> Tensor:
        rgb = np.repeat(np.broadcast_to(pixels * 255, (height, width)).round().astype(np.uint8)[:, :, None], 3, axis=2)
        return torch.as_tensor(transform(pil.fromarray(rgb))).double().mean(0)

    before = _get_random_state()
    with np.errstate(all="ignore"):  # standardising a black image divides 0 by 0
        black = apply(np.zeros((1, 1)))
        is_random = _get_random_state() != before
        sides = None if is_random else _find_by_ramps(apply, black, size) or _find_by_parabolas(apply, size)
    if sides is None:
        warnings.warn(
            "the transform does more than resize, crop and pad (it rotates, mirrors, reflects, distorts or draws at "
            "random); the map is laid over the whole photograph and may be off.",
            stacklevel=2,
        )
        return Box(0, 0, width, height)
    (left, right), (top, bottom) = sides
    return Box(left, top, right, bottom)


Sides: TypeAlias = "tuple[tuple[float, float], tuple[float, float]]"
"""Left and right, top and bottom of the region."""


def _make_centres(length: int) -> np.ndarray[Any, Any]:
    return (np.arange(length) + 0.5) / length


def _find_by_ramps(apply: Callable[[Any], Tensor], black: Tensor, size: tuple[int, int]) -> Sides | None:
    """Find the region from a black image, a white one and a ramp in each direction.

    Black and white undo affine changes of values, and a line fitted to each ramp gives the coordinates of the first and
    last pixel. Pixels that are equal for black and white are padding.
    """
    width, height = size
    span = apply(np.ones((1, 1))) - black
    region = _find_content(span)
    if region is None:
        return None
    columns, rows, share = region
    inside = span[rows, columns]
    across = (apply(_make_centres(width)[None]) - black)[rows, columns] / inside
    down = (apply(_make_centres(height)[:, None]) - black)[rows, columns] / inside
    if min(inside.shape) > 1 and max(float(across.std(0).max()), float(down.std(1).max())) >= STRAIGHT:
        return None
    horizontal = _find_edges(across.mean(0), columns, share.amax(0), width)
    vertical = _find_edges(down.mean(1), rows, share.amax(1), height)
    return (horizontal, vertical) if horizontal and vertical else None


def _find_by_parabolas(apply: Callable[[Any], Tensor], size: tuple[int, int]) -> Sides | None:
    """Find the region for a transform that standardises each image.

    The minimum of a parabola does not move under affine changes of its values; two parabolas have their minima at the
    edges of the photograph.
    """
    sides = []
    for dim, length in enumerate(size):
        places = _make_centres(length)
        bottoms = []
        for curve in (places**2, (1 - places) ** 2):
            picture = apply(curve[None] if dim == 0 else curve[:, None])
            bottoms.append(_find_minimum(picture if dim == 0 else picture.T))
        first, last = bottoms
        if first is None or last is None or not first < last:
            return None
        count, scale, slack = picture.shape[1 - dim], length / (last - first), 0.01 * length + 1
        near, far = -first * scale, (count - first) * scale
        if not (near > -slack and far < length + slack):
            return None
        whole = abs(near) < slack and abs(far - length) < slack
        sides.append((0.0, float(length)) if whole else (near, far))
    return sides[0], sides[1]


def _find_minimum(picture: Tensor) -> float | None:
    """Return the position of the minimum of the parabola in all rows, in pixels; None if they hold no parabola."""
    values = picture.mean(0)
    spread = float(values.max() - values.min())
    n = len(values)
    if n < 4 or not spread > 0 or float(picture.std(0, correction=0).max()) > 0.02 * spread:
        return None
    centres = np.arange(n) + 0.5
    inner = slice(n // 10, n - n // 10)
    square, slope, start = map(float, np.polyfit(centres[inner], values.numpy()[inner], 2))
    error = float(np.abs((square * centres + slope) * centres + start - values.numpy()).max())
    return None if error > 0.02 * spread or square * n * n < 0.02 * spread else -slope / (2 * square)


STRAIGHT = 0.05  # deviation of the ramp from a line beyond which the transform is no resizing


def _find_content(span: Tensor) -> tuple[slice, slice, Tensor] | None:
    """Return the columns and rows in which white differs from black, and the relative difference of all pixels.

    None if nothing differs, or the differing pixels form no rectangle.
    """
    size = span.abs()
    most = float(size.nan_to_num(0, 0, 0).max())
    if not (torch.isfinite(span).all() and most > 1e-9):
        return None
    share = (size / most).clamp_max(1)
    there = share > 0.5
    columns, rows = (torch.nonzero(there.any(d)).flatten() for d in (0, 1))
    found = slice(int(columns[0]), int(columns[-1]) + 1), slice(int(rows[0]), int(rows[-1]) + 1)
    return (*found, share) if bool(there[found[1], found[0]].all()) else None


def _find_edges(ramp: Tensor, place: slice, share: Tensor, length: int) -> tuple[float, float] | None:
    """Return the positions of the first and last pixel of an axis on the photograph; None unless the ramp is a line.

    Args:
        ramp: positions of the pixels in `place`, as fractions of `length`.
        place: pixels that show the photograph.
        share: share of each pixel of the axis that shows the photograph.
        length: length of the photograph in pixels.
    """
    first, last, error = _fit_line(ramp, length)
    slack = 0.01 * length + 1  # resolution of eight bits
    if not (error < STRAIGHT and -slack < first < last < length + slack):
        return None
    start, stop = float(place.start), float(place.stop)
    middle = (place.start + place.stop) // 2
    padded = place.start > 0 or place.stop < len(share)
    if padded and abs(first) < slack and abs(last - length) < slack:  # whole photograph: the padding gives exact edges
        first, last = 0.0, float(length)
        start, stop = float((1 - share[:middle]).sum()), len(share) - float((1 - share[middle:]).sum())
    elif not padded and abs(first) < slack and abs(last - length) < slack:
        return 0.0, float(length)
    scale = (last - first) / (stop - start)
    return first - start * scale, last + (len(share) - stop) * scale


def _fit_line(values: Tensor, length: int) -> tuple[float, float, float]:
    """Fit positions (as fractions of `length`) against pixel centres; return the edges and the largest error."""
    n = len(values)
    if n < 4:
        return 0.0, float(length), 0.0
    centres = np.arange(n) + 0.5
    inner = slice(n // 10, n - n // 10)  # resampling bends the ramp at the borders
    slope, start = map(float, np.polyfit(centres[inner], values.numpy()[inner], 1))
    error = float(np.abs(start + slope * centres - values.numpy()).max())
    return start * length, (start + slope * n) * length, error


def _get_random_state() -> tuple[Any, ...]:
    """Return the states of the random generators of Python, NumPy and torch."""
    mersenne: Any = np.random.get_state()
    return random.getstate(), mersenne[1].tobytes(), mersenne[2], torch.get_rng_state().numpy().tobytes()
