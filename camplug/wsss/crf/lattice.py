"""The permutohedral lattice: a Gaussian filter in d dimensions in time linear in the number of points.

Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from camplug.errors import InputError
from camplug.wsss.crf.distinct import Integers, find_distinct

Floats = NDArray[np.float32]

NARROW = 2  # up to so many columns, one product per column beats one over rows


class Lattice:
    """Approximates y_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j over N points f in d dimensions, i = j included.

    The points are embedded in the hyperplane of R^(d+1) whose coordinates add up to 0, where the lattice tiles space
    with simplices. A value is splatted on the d + 1 corners of the simplex around its point with barycentric weights,
    blurred with [1/2, 1, 1/2] along each of the d + 1 directions of the lattice, and sliced from the same corners with
    the same weights (section 3 of the paper). Corners that no point touches do not exist: what is blurred there is
    lost. The factor 1 / (1 + 2^-d) takes the place of the exact normalisation.

    Args:
        features: [N, d], in units of the standard deviation of the Gaussian along each axis.

    Raises:
        InputError: features of another shape or not finite, or points too far apart to number the lattice.

    Attributes:
        slices: [N, M + 1] sparse, d + 1 weights a row; its transpose splats. Column M belongs to no corner.
        ahead: [d + 1, M + 1] the next corner in each direction, M where there is none.
        behind: [d + 1, M + 1] likewise the corner before.
        scale: the factor 1 / (1 + 2^-d), and what `multiply` adds to it.

    >>> lattice = Lattice(np.array([[0.0], [1.0], [50.0]]))
    >>> lattice.filter(np.array([[1.0], [0.0], [0.0]], np.float32)).round(3)  # exactly: 1, 0.607, 0
    array([[0.833],
           [0.589],
           [0.   ]], dtype=float32)
    """

    def __init__(self, features: NDArray[Any]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # refused then
            planes = np.ascontiguousarray(_check_features(features).T, np.float32)
            elevated = _check_range(_elevate(planes))
        corner, rank, weights = _find_simplices(elevated)
        strides = _compute_strides(corner)
        codes, numbers = find_distinct(_encode_corners(corner, rank, strides))
        self.slices = _make_row_matrix(weights.T, numbers.T, len(codes) + 1)
        self.ahead, self.behind = _find_neighbours(codes, strides)
        self.scale = 1 / (1 + 2.0 ** -len(planes))

    @property
    def points(self) -> int:
        """N."""
        return int(self.slices.shape[0])

    @property
    def corners(self) -> int:
        """M, the corners of all simplices that hold a point."""
        return int(self.slices.shape[1]) - 1

    def filter(self, values: Floats) -> Floats:
        """Values [N, C] filtered, [N, C] float32.

        One or two columns go one by one, fastest in Fortran order; more, together, in C order.

        Raises:
            InputError: values of another shape.
        """
        if values.ndim != 2 or len(values) != self.points:
            raise InputError(f"values are {list(values.shape)}; give [{self.points}, C], a row for each point.")
        if values.shape[1] > NARROW:
            return self._filter(np.ascontiguousarray(values, np.float32))
        out = np.empty(values.shape, np.float32, order="F")
        for c in range(values.shape[1]):
            out[:, c] = self._filter(np.ascontiguousarray(values[:, c], np.float32))
        return out

    def normalize(self) -> Lattice:
        """The lattice of N K N, where K is this filter and N = diag(1 / sqrt(K 1)): symmetric normalisation."""
        total = self.filter(np.ones((self.points, 1), np.float32))
        indices = self.slices.indices.reshape(self.points, -1)
        weights = self.slices.data.reshape(indices.shape) / np.sqrt(total + np.float32(1e-20))
        return self._copy_with(slices=_make_row_matrix(weights, indices, self.corners + 1))

    def multiply(self, factor: float) -> Lattice:
        """The lattice whose results are `factor` times those of this one; it shares all arrays."""
        return self._copy_with(scale=self.scale * factor)

    def _copy_with(self, **changes: Any) -> Lattice:
        other = copy(self)
        other.__dict__.update(changes)
        return other

    def _filter(self, values: Floats) -> Floats:
        """[N] or [N, C]."""
        spread: Floats = self.slices.T @ values
        sides, other = np.empty_like(spread), np.empty_like(spread)
        for ahead, behind in zip(self.ahead, self.behind, strict=True):
            np.take(spread, ahead, axis=0, out=sides, mode="clip")  # no bounds to check, no copy
            np.take(spread, behind, axis=0, out=other, mode="clip")
            sides += other
            sides *= np.float32(0.5)
            spread += sides
        spread *= np.float32(self.scale)
        sliced: Floats = self.slices @ spread
        return sliced


def _check_features(features: NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(features)
    if array.ndim != 2 or not array.size:
        raise InputError(f"features are {list(array.shape)}; give [N, d], one row for each of one or more points.")
    if not np.isfinite(array).all():
        raise InputError("features hold nan or infinite values; give finite ones.")
    return array


def _make_row_matrix(weights: Floats, numbers: NDArray[np.int32], columns: int) -> sparse.csr_array:
    """A sparse matrix with as many entries in each row: weights and their columns, both [N, d + 1]."""
    n, width = weights.shape
    starts = np.arange(0, n * width + 1, width, dtype=np.int32 if n * width < 2**31 else np.int64)
    indices = np.ascontiguousarray(numbers).reshape(-1)
    return sparse.csr_array((np.ascontiguousarray(weights).reshape(-1), indices, starts), shape=(n, columns))


def _elevate(planes: Floats) -> Floats:
    """Points [d, N] on the hyperplane, [d + 1, N].

    Scaled so that splat, blur and slice together amount to standard deviation 1 (section 3.1).
    """
    d, n = planes.shape
    axis = np.arange(d)
    scales = (d + 1) * np.sqrt(2 / 3) / np.sqrt((axis + 1) * (axis + 2))
    elevated = np.empty((d + 1, n), np.float32)
    total = elevated[0]
    total[:] = 0
    for i in range(d, 0, -1):
        scaled = planes[i - 1] * np.float32(scales[i - 1])
        np.subtract(total, np.float32(i) * scaled, out=elevated[i])
        total += scaled
    return elevated


def _check_range(elevated: Floats) -> Floats:
    """The points, if float32 still tells their simplices apart."""
    farthest = np.abs(elevated).max()
    if not farthest < 2**22:
        raise InputError(
            f"points lie up to {farthest:.2g} steps of the lattice from the origin, beyond what float32 tells apart; "
            "give larger standard deviations."
        )
    return elevated


def _find_simplices(elevated: Floats) -> tuple[Floats, NDArray[np.int8], Floats]:
    """The simplex around each point: remainder-0 corner, rank of each coordinate, barycentric weights; [d + 1, N] each.

    The remainder-0 corner is the nearest lattice point whose coordinates are multiples of d + 1; the order of the
    differences from it tells the simplex (section 3.2, propositions 3 and 4).
    """
    d = len(elevated) - 1
    corner = np.rint(elevated * np.float32(1 / (d + 1)))
    excess = corner.sum(0).astype(np.int8)
    corner *= np.float32(d + 1)
    offset = elevated - corner
    rank = np.zeros(offset.shape, np.int8)
    for i in range(d):
        for j in range(i + 1, d + 1):
            less = offset[i] < offset[j]
            rank[i] += less
            rank[j] += ~less
    rank += excess  # so many steps off the hyperplane: the coordinates that were rounded farthest go the other way
    shift = ((rank < 0).astype(np.int8) - (rank > d)) * np.int8(d + 1)
    rank += shift
    corner += shift
    offset -= shift
    offset *= np.float32(1 / (d + 1))
    _sort_down(offset)
    weights = np.empty_like(offset)
    np.subtract(offset[d], offset[0], out=weights[0])
    weights[0] += 1
    np.subtract(offset[d - 1 :: -1], offset[:0:-1], out=weights[1:])
    return corner, rank, weights


def _sort_down(planes: Floats) -> None:
    """Sorts each column, the largest first: bubble sort, for a handful of rows and very many columns."""
    for end in range(len(planes) - 1, 0, -1):
        for i in range(end):
            low = np.minimum(planes[i], planes[i + 1])
            np.maximum(planes[i], planes[i + 1], out=planes[i])
            planes[i + 1] = low


def _compute_strides(corner: Floats) -> Integers:
    """Factors [d] that pack the first d coordinates of any corner, and of any neighbour of one, into one integer."""
    d = len(corner) - 1
    spans = [int(c.max() - c.min()) + 6 * (d + 1) for c in corner[:d]]
    strides = [1]
    for span in reversed(spans):
        strides.append(strides[-1] * span)
    if strides.pop() >= 2**62:
        raise InputError(
            f"the points span {' x '.join(map(str, spans))} steps of the lattice, too many to number; "
            "give larger standard deviations."
        )
    return np.array(strides[::-1], np.int64)


def _encode_corners(corner: Floats, rank: NDArray[np.int8], strides: Integers) -> Integers:
    """The d + 1 corners of each point's simplex as integers, [d + 1, N].

    From corner r - 1 to corner r, each coordinate grows by 1, and the one of rank d - r + 1 falls by d + 1.
    """
    d = len(strides)
    codes = np.zeros(corner.shape, np.int64)
    for c, stride in zip(corner[:d], strides, strict=True):
        codes[0] += (c - (c.min() - 3 * (d + 1))).astype(np.int64) * stride
    for r in range(1, d + 1):
        np.add(codes[r - 1], strides.sum(), out=codes[r])
        for coordinate, stride in zip(rank[:d], strides, strict=True):
            codes[r] -= (coordinate == d - r + 1) * ((d + 1) * stride)
    return codes


def _find_neighbours(codes: Integers, strides: Integers) -> tuple[Integers, Integers]:
    """The corners next to each of the M corners (sorted by code) in the d + 1 directions, [d + 1, M + 1] each."""
    m, d = len(codes), len(strides)
    ahead, behind = np.full((2, d + 1, m + 1), m, np.int64)
    for j in range(d + 1):
        step = (d + 1) * (strides[j] if j < d else 0) - strides.sum()
        target = codes + step
        place = np.minimum(np.searchsorted(codes, target), m - 1)
        here = np.flatnonzero(codes[place] == target)
        there = place[here]
        ahead[j, here], behind[j, there] = there, here
    return ahead, behind
