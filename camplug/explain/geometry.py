"""Find the part of a photograph that a user's own transform shows, by pictures of the coordinates sent through it."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor


class Box(NamedTuple):
    """The part of a photograph that the model's input shows, in its pixels; right and bottom are outside.

    A part of the photograph where it was cropped; more than all of it where it was padded.
    """

    left: float
    top: float
    right: float
    bottom: float


def find_box(transform: Callable[[Any], Any], size: tuple[int, int]) -> Box:
    """The part of a photograph of this size (width, height) that a transform shows, padding included.

    Pictures of which every pixel's place is known go through the transform (`_by_levels`, `_by_curves`). Holds for
    resizing, cropping and padding in any order; a transform that rotates, mirrors, reflects or draws at random is told
    of by a warning.
    """
    from PIL import Image as pil

    width, height = size

    def through(pixels: np.ndarray[Any, Any]) -> Tensor:
        rgb = np.repeat(np.broadcast_to(pixels * 255, (height, width)).round().astype(np.uint8)[:, :, None], 3, axis=2)
        return torch.as_tensor(transform(pil.fromarray(rgb))).double().mean(0)

    before = _random_state()
    with np.errstate(all="ignore"):  # what standardises each picture divides 0 by 0 in a black one
        black = through(np.zeros((1, 1)))
        draws = _random_state() != before  # the pictures would go different ways
        sides = None if draws else _by_levels(through, black, size) or _by_curves(through, size)
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
"""Left and right, top and bottom of what is shown."""


def _centres(length: int) -> np.ndarray[Any, Any]:
    return (np.arange(length) + 0.5) / length


def _by_levels(through: Callable[[Any], Tensor], black: Tensor, size: tuple[int, int]) -> Sides | None:
    """Find the geometry from black, white and a ramp in each direction.

    Black and white undo whatever the transform does to values, and a line through each ramp gives the coordinates of
    the first and last pixel. What stays the same for black and white is padding.
    """
    width, height = size
    span = through(np.ones((1, 1))) - black
    shown = _shown(span)
    if shown is None:
        return None
    columns, rows, share = shown
    inside = span[rows, columns]
    across = (through(_centres(width)[None]) - black)[rows, columns] / inside
    down = (through(_centres(height)[:, None]) - black)[rows, columns] / inside
    if min(inside.shape) > 1 and max(float(across.std(0).max()), float(down.std(1).max())) >= STRAIGHT:
        return None
    horizontal = _edges(across.mean(0), columns, share.amax(0), width)
    vertical = _edges(down.mean(1), rows, share.amax(1), height)
    return (horizontal, vertical) if horizontal and vertical else None


def _by_curves(through: Callable[[Any], Tensor], size: tuple[int, int]) -> Sides | None:
    """Find the geometry where a transform scales every picture by itself, as standardisation does.

    The bottom of a parabola stays where it is, whatever is added to its values or multiplied with them; two of them
    have theirs at the two edges of the photograph.
    """
    sides = []
    for dim, length in enumerate(size):
        places = _centres(length)
        bottoms = []
        for curve in (places**2, (1 - places) ** 2):
            picture = through(curve[None] if dim == 0 else curve[:, None])
            bottoms.append(_bottom(picture if dim == 0 else picture.T))
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


def _bottom(picture: Tensor) -> float | None:
    """Return where the parabola in every row of a picture has its bottom, in pixels; None where there is none."""
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


STRAIGHT = 0.05  # of the ramp: a line that bends, or rows that differ, by this much are no resizing


def _shown(span: Tensor) -> tuple[slice, slice, Tensor] | None:
    """The columns and rows in which white differs from black (elsewhere is padding), and by how much of the most.

    None where nothing differs, or what differs is no rectangle.
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


def _edges(ramp: Tensor, place: slice, share: Tensor, length: int) -> tuple[float, float] | None:
    """Return where the first and last pixel of an axis lie on the photograph; None where the ramp is no rising line.

    Args:
        ramp: the positions, as fractions of `length`, of the pixels in `place`.
        place: the pixels that show the photograph.
        share: of every pixel of the axis, how much of it shows the photograph.
        length: of the photograph, in pixels.
    """
    first, last, error = _line(ramp, length)
    slack = 0.01 * length + 1  # what eight bits can tell
    if not (error < STRAIGHT and -slack < first < last < length + slack):
        return None
    start, stop = float(place.start), float(place.stop)
    middle = (place.start + place.stop) // 2
    padded = place.start > 0 or place.stop < len(share)
    if padded and abs(first) < slack and abs(last - length) < slack:  # all of it: the padding tells to the pixel
        first, last = 0.0, float(length)
        start, stop = float((1 - share[:middle]).sum()), len(share) - float((1 - share[middle:]).sum())
    elif not padded and abs(first) < slack and abs(last - length) < slack:
        return 0.0, float(length)
    scale = (last - first) / (stop - start)
    return first - start * scale, last + (len(share) - stop) * scale


def _line(values: Tensor, length: int) -> tuple[float, float, float]:
    """Fit positions (as fractions of `length`) against pixel centres; the edges, and how badly it fits."""
    n = len(values)
    if n < 4:
        return 0.0, float(length), 0.0
    centres = np.arange(n) + 0.5
    inner = slice(n // 10, n - n // 10)  # resampling bends the ramp at the borders
    slope, start = map(float, np.polyfit(centres[inner], values.numpy()[inner], 1))
    error = float(np.abs(start + slope * centres - values.numpy()).max())
    return start * length, (start + slope * n) * length, error


def _random_state() -> tuple[Any, ...]:
    """The states of the generators that transforms draw from."""
    mersenne: Any = np.random.get_state()
    return random.getstate(), mersenne[1].tobytes(), mersenne[2], torch.get_rng_state().numpy().tobytes()
