"""Pairs of neighbouring positions on a grid and the straight paths between them, as offsets and slices."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import Any, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from camplug.errors import InputError

Offset: TypeAlias = tuple[int, int]


@cache
def make_half_disc(radius: int) -> tuple[Offset, ...]:
    """List the offsets (dy, dx) closer than `radius` that are ahead in reading order, so that every pair occurs once.

    As in IRN and PSA: dy = 0 with dx = 1 to radius - 1, then dy = 1 to radius - 1, where dx^2 + dy^2 < radius^2.

    >>> make_half_disc(2)
    ((0, 1), (1, -1), (1, 0), (1, 1))
    >>> len(make_half_disc(5)), len(make_half_disc(10))
    (34, 152)

    Raises:
        InputError: the radius is below 2, so there are no neighbours.
    """
    if not isinstance(radius, int) or radius < 2:
        raise InputError(f"radius={radius!r}; give a whole number of positions, at least 2.")
    ahead = [(0, dx) for dx in range(1, radius)]
    below = [(dy, dx) for dy in range(1, radius) for dx in range(1 - radius, radius)]
    return tuple(ahead + [(dy, dx) for dy, dx in below if dy * dy + dx * dx < radius * radius])


@cache
def make_path(dy: int, dx: int) -> tuple[Offset, ...]:
    """List the positions that the straight line from (0, 0) to (dy, dx) touches, both ends included.

    IRN's rule: every position of the bounding box whose squared distance to the line is below 1, the destination first.

    >>> make_path(0, 2)
    ((0, 2), (0, 1), (0, 0))
    >>> make_path(2, -2)
    ((2, -2), (1, -2), (2, -1), (1, -1), (0, -1), (1, 0), (0, 0))
    """
    length = dy * dy + dx * dx
    box = [(y, x) for y in _make_range(dy) for x in _make_range(dx)]
    near = [(y, x) for y, x in box if (dy * x - dx * y) ** 2 < length]
    return tuple(sorted(near, key=lambda at: (-abs(at[0]) - abs(at[1]), at)))


def _make_range(end: int) -> range:
    return range(0, end + 1) if end >= 0 else range(0, end - 1, -1)


def slice_ends(x: Any, dy: int, dx: int) -> tuple[Any, Any]:
    """Slice the sources and the destinations of all pairs with an offset: views [..., h', w'] of an array [..., h, w].

    Pairs with an end off the grid are left out; views are empty if the grid is too small. dy must not be negative.

    >>> import torch
    >>> slice_ends(torch.arange(4).reshape(2, 2), 1, -1)
    (tensor([[1]]), tensor([[2]]))
    """
    h, w = x.shape[-2:]
    rows, cols = max(h - dy, 0), max(w - abs(dx), 0)
    left = max(-dx, 0)
    return x[..., :rows, left : left + cols], x[..., dy : dy + rows, left + dx : left + dx + cols]


def slice_path(x: Any, dy: int, dx: int) -> Iterator[Any]:
    """Yield views [..., h', w'] of an array [..., h, w] for each position of the paths of all pairs with an offset.

    Views are aligned with `slice_ends`: the first contains the destinations, the last the sources.
    """
    h, w = x.shape[-2:]
    rows, cols = max(h - dy, 0), max(w - abs(dx), 0)
    left = max(-dx, 0)
    for y, step in make_path(dy, dx):
        yield x[..., y : y + rows, left + step : left + step + cols]


def slice_ahead(x: Tensor, radius: int, fill: float) -> Tensor:
    """Return the values ahead of every position in the half disc's box: a view [...,r,2r-1,h,w] of one padded copy.

    Element [..., dy, dx + r - 1, y, x] is x[..., y + dy, x + dx], or `fill` off the grid. `slice_ends` and `slice_path`
    return one offset at a time; this view serves all offsets in few operations, which is faster on a GPU.

    >>> import torch
    >>> slice_ahead(torch.tensor([[1, 2, 3]]), 2, fill=0)[0]  # dx = -1, 0, 1
    tensor([[[0, 1, 2]],
    <BLANKLINE>
            [[1, 2, 3]],
    <BLANKLINE>
            [[2, 3, 0]]])
    """
    (h, w), reach = x.shape[-2:], radius - 1
    padded = F.pad(x, (reach, reach, 0, reach), value=fill)
    return padded.unfold(-2, h, 1).unfold(-2, w, 1)


@cache
def group_rows(radius: int) -> tuple[tuple[int, slice, slice], ...]:
    """Group the half disc by dy: (dy, columns in `slice_ahead`, numbers in `make_half_disc`); dx rises without gaps.

    >>> group_rows(2)
    ((0, slice(2, 3, None), slice(0, 1, None)), (1, slice(0, 3, None), slice(1, 4, None)))
    """
    found = []
    for dy, group in groupby(enumerate(make_half_disc(radius)), lambda one: one[1][0]):
        members = list(group)
        (first, (_, left)), (last, (_, right)) = members[0], members[-1]
        found.append((dy, slice(left + radius - 1, right + radius), slice(first, last + 1)))
    return tuple(found)
