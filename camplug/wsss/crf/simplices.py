"""Simplices of the permutohedral lattice around points, and the neighbours of their corners.

Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.crf.distinct import find_distinct

TABULATED = 5  # coordinates up to which the ranks of all simplices fit a small table
FARTHEST = 2**22  # steps of the lattice up to which float32 distinguishes simplices


class Simplices(NamedTuple):
    """Corners of the simplices around N points in d dimensions.

    Attributes:
        numbers: corners of each point's simplex among the M distinct corners, int32 [N, d + 1].
        weights: barycentric weights of these corners, float32 [N, d + 1].
        codes: distinct corners as integers, sorted, int64 [M].
        strides: factors of the first d coordinates in codes.
    """

    numbers: Tensor
    weights: Tensor
    codes: Tensor
    strides: list[int]


def find_simplices(points: Tensor, images: Tensor | None = None) -> Simplices:
    """Find the simplex around each point and the distinct corners of all of them (section 3.2, propositions 3 and 4).

    The remainder-0 corner is the nearest lattice point whose coordinates are multiples of d + 1; the order of the
    differences from it determines the simplex.

    Args:
        points: float32 [N, d], in standard deviations.
        images: number of each point's image, int64 [N]; points of two images share no corners. None: there is one.

    Raises:
        InputError: points are too far apart for float32, or for numbering the corners.
    """
    d = points.shape[1]
    elevated = elevate_points(points)
    corner = (elevated * (1 / (d + 1))).round_()
    bounds = torch.stack([elevated.abs().amax(1), corner.amin(1), corner.amax(1)]).tolist()  # the only transfer
    _check_range(max(bounds[0]))
    low = [int(value) * (d + 1) - 3 * (d + 1) for value in bounds[1][:d]]
    high = [int(value) * (d + 1) + 3 * (d + 1) for value in bounds[2][:d]]
    count = 1 if images is None else int(images.max()) + 1
    strides, size = _compute_strides([b - a + d + 1 for a, b in zip(low, high, strict=True)], count)
    rank, weights = _rank_coordinates(elevated, corner)
    codes = _encode_corners(corner, rank, low, strides)
    if images is not None:
        codes += (images * size)[:, None]
    if codes.device.type == "cpu":
        distinct, numbers = map(torch.from_numpy, find_distinct(codes.numpy()))
    else:
        distinct, numbers = torch.unique(codes, return_inverse=True)
    return Simplices(numbers.int(), weights, distinct, strides)


def elevate_points(points: Tensor) -> Tensor:
    """Embed points [N, d] in the hyperplane of R^(d+1) whose coordinates add up to 0, [d + 1, N].

    They are scaled so that splat, blur and slice together amount to standard deviation 1 (section 3.1).
    """
    n, d = points.shape
    elevated = points.new_empty(d + 1, n)
    total = elevated[0].zero_()
    for i in range(d, 0, -1):
        scaled = points[:, i - 1] * ((d + 1) * (2 / 3) ** 0.5 / (i * (i + 1)) ** 0.5)
        torch.sub(total, scaled, alpha=i, out=elevated[i])
        total += scaled
    return elevated


def find_neighbours(simplices: Simplices) -> tuple[Tensor, Tensor]:
    """Find the next and previous corners in d + 1 directions, int64 [d + 1, M + 1] each; M where there is none."""
    codes, strides = simplices.codes, simplices.strides
    m, d = len(codes), len(strides)
    numbers = torch.arange(m, device=codes.device)
    ahead, behind = torch.full((2, d + 1, m + 1), m, device=codes.device).unbind()
    for j in range(d + 1):
        step = (d + 1) * (strides[j] if j < d else 0) - sum(strides)
        target = codes + step
        place = _search(codes, target).clamp_(max=m - 1)
        ahead[j, :m] = torch.where(codes[place] == target, place, m)
        behind[j].scatter_(0, ahead[j, :m], numbers)
        behind[j, m:] = m  # what was written for corners without a neighbour
    return ahead, behind


def _search(codes: Tensor, targets: Tensor) -> Tensor:
    """Return the first place in sorted codes that is not below each target; numpy is faster for sorted targets."""
    if codes.device.type == "cpu":
        return torch.from_numpy(np.searchsorted(codes.numpy(), targets.numpy()))
    return torch.searchsorted(codes, targets)


def _check_range(farthest: float) -> None:
    """Raise InputError if float32 cannot distinguish the simplices of points up to `farthest` steps away."""
    if not farthest < FARTHEST:
        raise InputError(
            f"points lie up to {farthest:.2g} steps of the lattice from the origin, beyond what float32 tells apart; "
            "give larger standard deviations."
        )


def _compute_strides(spans: list[int], images: int) -> tuple[list[int], int]:
    """Compute factors that encode d coordinates within spans as one integer, and the number of codes of an image."""
    strides = [1]
    for span in reversed(spans):
        strides.append(strides[-1] * span)
    size = strides.pop()
    if size * images >= 2**62:
        of = "" if images == 1 else f" in {images} images"
        raise InputError(
            f"the points span {' x '.join(map(str, spans))} steps of the lattice{of}, too many to number; give larger "
            "standard deviations."
        )
    return strides[::-1], size


def _rank_coordinates(elevated: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ranks of the coordinates [d + 1, N], by their differences from corner 0, and the weights [N, d + 1].

    Args:
        elevated: points.
        corner: nearest multiples of d + 1, divided by d + 1; multiplied and moved onto the hyperplane in place.
    """
    d = len(elevated) - 1
    excess = corner.sum(0).to(torch.int8)
    corner *= d + 1
    offset = elevated - corner
    rank = torch.arange(d + 1, dtype=torch.int8, device=corner.device)[:, None].repeat(1, offset.shape[1])
    for i in range(d):
        for j in range(i + 1, d + 1):
            less = (offset[i] < offset[j]).view(torch.int8)
            rank[i] += less
            rank[j] -= less
    rank += excess  # steps off the hyperplane: the coordinates rounded farthest are rounded the other way
    shift = ((rank < 0).view(torch.int8) - (rank > d).view(torch.int8)) * (d + 1)
    rank += shift
    moved = shift.float()
    corner += moved
    offset -= moved
    offset *= 1 / (d + 1)
    _sort_down(offset)
    weights = offset.new_empty(offset.shape[::-1])
    torch.sub(offset[d], offset[0], out=weights[:, 0])
    weights[:, 0] += 1
    for i in range(d):
        torch.sub(offset[d - 1 - i], offset[d - i], out=weights[:, i + 1])
    return rank, weights


def _sort_down(planes: Tensor) -> None:
    """Sort each column in descending order: bubble sort, for few rows and very many columns."""
    for end in range(len(planes) - 1, 0, -1):
        for i in range(end):
            low = torch.minimum(planes[i], planes[i + 1])
            torch.maximum(planes[i], planes[i + 1], out=planes[i])
            planes[i + 1] = low


def _encode_corners(corner: Tensor, rank: Tensor, low: list[int], strides: list[int]) -> Tensor:
    """Encode the d + 1 corners of each point's simplex as integers, int64 [N, d + 1].

    From corner r - 1 to corner r, each coordinate increases by 1, and the one of rank d - r + 1 decreases by d + 1.
    Ranks of up to `TABULATED` coordinates are looked up in a table of what they add to the code of corner 0.
    """
    d, (_, n) = len(strides), corner.shape
    first = torch.zeros(n, dtype=torch.int64, device=corner.device)
    for c, least, stride in zip(corner[:d], low, strides, strict=True):
        first.add_((c - least).long(), alpha=stride)
    if d > TABULATED:
        return first[:, None] + _add_steps(rank[:d].T, strides)
    base = (d + 1) ** torch.arange(d)
    ranks = torch.arange((d + 1) ** d)[:, None] // base % (d + 1)
    number = torch.zeros(n, dtype=torch.int32, device=corner.device)
    for one, factor in zip(rank[:d], base.tolist(), strict=True):
        number.add_(one, alpha=factor)
    return _add_steps(ranks, strides).to(corner.device).index_select(0, number).add_(first[:, None])


def _add_steps(ranks: Tensor, strides: list[int]) -> Tensor:
    """Return what ranks [R, d] add to the code of corner 0 for the codes of all corners, int64 [R, d + 1]."""
    d = len(strides)
    factors = torch.tensor(strides, device=ranks.device)
    steps = [r * sum(strides) - (d + 1) * (factors * (ranks > d - r)).sum(1) for r in range(d + 1)]
    return torch.stack(steps, 1)
