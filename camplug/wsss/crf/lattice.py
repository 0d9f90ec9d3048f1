"""Permutohedral lattice: Gaussian filter in d dimensions, in time linear in the number of points.

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

NARROW = 2  # up to this number of columns, products by column are faster


class Lattice:
    """Approximation of the filter y_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j over N points f in d dimensions, with i = j.

    The points are embedded in the hyperplane of R^(d+1) whose coordinates add up to 0, where the lattice tiles space
    with simplices. A value is splatted on the d + 1 corners of the simplex around its point with barycentric weights,
    blurred with [1/2, 1, 1/2] along each of the d + 1 directions of the lattice, and sliced from the same corners with
    the same weights (section 3 of the paper). Corners without points do not exist: what is blurred there is lost. The
    factor 1 / (1 + 2^-d) replaces the exact normalisation.

    Args:
        features: points [N, d], in standard deviations of the Gaussian along each axis.

    Raises:
        InputError: features have another shape or are not finite, or points are too far apart for the lattice.

    Attributes:
        slices: sparse weights [N, M + 1], d + 1 per row; the transpose splats. Column M is a placeholder.
        ahead: next corner in each direction [d + 1, M + 1]; M if there is none.
        behind: previous corner in each direction [d + 1, M + 1]; M if there is none.
        scale: factor 1 / (1 + 2^-d) times those of `multiply`.

    >>> lattice = Lattice(np.array([[0.0], [1.0], [50.0]]))
    >>> lattice.filter(np.array([[1.0], [0.0], [0.0]], np.float32)).round(3)  # exactly: 1, 0.607, 0
    array([[0.833],
           [0.589],
           [0.   ]], dtype=float32)
    """

    def __init__(self, features: NDArray[Any]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # raises in the checks
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
        """Number N of points."""
        return int(self.slices.shape[0])

    @property
    def corners(self) -> int:
        """Number M of corners of all simplices with points."""
        return int(self.slices.shape[1]) - 1

    def filter(self, values: Floats) -> Floats:
        """Filter values [N, C], float32.

        Fortran order is fastest for one or two columns, C order for more.

        Raises:
            InputError: values have another shape.
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
        """Return the lattice of N K N with symmetric normalisation: K is this filter, N = diag(1 / sqrt(K 1))."""
        total = self.filter(np.ones((self.points, 1), np.float32))
        indices = self.slices.indices.reshape(self.points, -1)
        weights = self.slices.data.reshape(indices.shape) / np.sqrt(total + np.float32(1e-20))
        return self._copy_with(slices=_make_row_matrix(weights, indices, self.corners + 1))

    def multiply(self, factor: float) -> Lattice:
        """Return a lattice with results `factor` times as large; it shares all arrays."""
        return self._copy_with(scale=self.scale * factor)

    def _copy_with(self, **changes: Any) -> Lattice:
        other = copy(self)
        other.__dict__.update(changes)
        return other

    def _filter(self, values: Floats) -> Floats:
        """Filter values [N] or [N, C]."""
        spread: Floats = self.slices.T @ values
        sides, other = np.empty_like(spread), np.empty_like(spread)
        for ahead, behind in zip(self.ahead, self.behind, strict=True):
            np.take(spread, ahead, axis=0, out=sides, mode="clip")  # skips bounds checks and a copy
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
    """Make a sparse matrix with d + 1 entries per row, from weights and their columns [N, d + 1]."""
    n, width = weights.shape
    starts = np.arange(0, n * width + 1, width, dtype=np.int32 if n * width < 2**31 else np.int64)
    indices = np.ascontiguousarray(numbers).reshape(-1)
    return sparse.csr_array((np.ascontiguousarray(weights).reshape(-1), indices, starts), shape=(n, columns))


def _elevate(planes: Floats) -> Floats:
    """Embed points [d, N] in the hyperplane, [d + 1, N].

    They are scaled so that splat, blur and slice together amount to standard deviation 1 (section 3.1).
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
    """Return the points; raise InputError if float32 cannot distinguish their simplices."""
    farthest = np.abs(elevated).max()
    if not farthest < 2**22:
        raise InputError(
            f"points lie up to {farthest:.2g} steps of the lattice from the origin, beyond what float32 tells apart; "
            "give larger standard deviations."
        )
    return elevated


def _find_simplices(elevated: Floats) -> tuple[Floats, NDArray[np.int8], Floats]:
    """Find the simplex around each point: remainder-0 corner, coordinate ranks, barycentric weights, [d + 1, N] each.

    The remainder-0 corner is the nearest lattice point whose coordinates are multiples of d + 1; the order of the
    differences from it determines the simplex (section 3.2, propositions 3 and 4).
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
    rank += excess  # steps off the hyperplane: the coordinates rounded farthest are rounded the other way
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
    """Sort each column in descending order: bubble sort, for few rows and very many columns."""
    for end in range(len(planes) - 1, 0, -1):
        for i in range(end):
            low = np.minimum(planes[i], planes[i + 1])
            np.maximum(planes[i], planes[i + 1], out=planes[i])
            planes[i + 1] = low


def _compute_strides(corner: Floats) -> Integers:
    """Compute factors [d] that encode the first d coordinates of corners and their neighbours as one integer."""
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
    """Encode the d + 1 corners of each point's simplex as integers, [d + 1, N].

    From corner r - 1 to corner r, each coordinate increases by 1, and the one of rank d - r + 1 decreases by d + 1.
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
    """Find the next and previous corners of M corners (sorted by code) in d + 1 directions, [d + 1, M + 1] each."""
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
