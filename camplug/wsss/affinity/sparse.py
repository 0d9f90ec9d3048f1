"""Affinities of positions of a grid as a sparse symmetric matrix."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from operator import index
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from camplug.errors import InputError
from camplug.wsss.affinity.pairs import Offset, slice_ends
from camplug.wsss.affinity.table import Table

SLACK = 1e-6  # tolerance for rounding in float32


class SparseAffinity:
    """Sparse affinities of positions of a grid: a_ij = a_ji in [0, 1], a_ii = 1.

    Constructed from a matrix, or by `from_pairs` from planes of pairs; those of planes on a GPU stay on the GPU.

    Args:
        matrix: affinities [n, n] with n = h * w, positions in row-major order: a scipy sparse matrix, or a small dense
            array or tensor. It is copied.
        size: (h, w) of the grid.

    Attributes:
        matrix: scipy `csr_array` [n, n] float32 with sorted columns; 8 bytes per value. For planes on a GPU it is made
            on first access.
        size: (h, w).
        device: device of the planes; else the CPU.

    Raises:
        InputError: the shape does not fit the grid, values are nan or outside [0, 1], or the matrix is not symmetric
            with ones on its diagonal.

    >>> SparseAffinity([[1, 0.5], [0.5, 1]], size=(1, 2))
    SparseAffinity(1x2, 4 values)
    """

    size: tuple[int, int]
    table: Table | None = None  # values of planes on a GPU

    def __init__(self, matrix: Any, size: Sequence[int]) -> None:
        self.size = check_grid_size(size)
        self.matrix = _check_matrix(matrix, self.size)

    @cached_property
    def matrix(self) -> csr_array:
        """Matrix on the CPU."""
        assert self.table is not None  # else the constructor sets it
        return self.table.to_matrix()

    @property
    def device(self) -> torch.device:
        """Device of the values."""
        return torch.device("cpu") if self.table is None else self.table.values.device

    @classmethod
    def from_pairs(cls, planes: Any, offsets: Sequence[Offset], size: Sequence[int] | None = None) -> SparseAffinity:
        """Make an affinity from planes: planes[p, y, x] is the affinity of (y, x) and (y + dy, x + dx).

        Values of pairs with an end off the grid are ignored.

        Args:
            planes: affinities [P, h, w] in [0, 1], an array or a tensor.
            offsets: P offsets (dy, dx), each pair once: dy > 0, or dy = 0 and dx > 0; see `make_half_disc`.
            size: (h, w), by default that of the planes.

        Raises:
            InputError: shapes do not fit, an offset points backwards or occurs twice, or values are nan or outside
                [0, 1].

        >>> affinity = SparseAffinity.from_pairs([[[0.5, 0.25, 9]]], offsets=[(0, 1)])
        >>> affinity.matrix.toarray()
        array([[1.  , 0.5 , 0.  ],
               [0.5 , 1.  , 0.25],
               [0.  , 0.25, 1.  ]], dtype=float32)
        """
        far = isinstance(planes, torch.Tensor) and planes.device.type != "cpu"
        values: Any = planes.detach() if far else to_numpy(planes, "planes")
        ahead = sorted((*offset, p) for p, offset in enumerate(offsets))
        if values.ndim != 3 or len(values) != len(ahead):
            raise InputError(
                f"planes are {list(values.shape)} for {len(ahead)} offsets; give [P, h, w] with one plane per offset."
            )
        _check_offsets(ahead)
        affinity = cls.__new__(cls)
        affinity.size = check_grid_size(values.shape[1:])
        if size is not None and check_grid_size(size) != affinity.size:
            raise InputError(
                f"planes are {_format_size(affinity.size)} and size is {_format_size(check_grid_size(size))}; give "
                "planes of that size."
            )
        if far:
            affinity.table = Table.from_planes(values, ahead)
            _check_range(*torch.stack(affinity.table.values.aminmax()).tolist())
            affinity.table.values.clamp_(0, 1)
        else:
            affinity.matrix = _build_matrix(values, ahead)
        return affinity

    def __repr__(self) -> str:
        return f"SparseAffinity({_format_size(self.size)}, {self.matrix.nnz} values)"


def _build_matrix(planes: NDArray[Any], ahead: list[tuple[int, int, int]]) -> csr_array:
    """Build the matrix without sorting and with little additional memory.

    A row's columns increase with (dy, dx), so all rows are filled offset by offset; `free` is the next place per row.
    """
    h, w = planes.shape[1:]
    counts = np.ones((h, w), np.int64)  # the diagonal
    for dy, dx, _ in ahead:
        sources, destinations = slice_ends(counts, dy, dx)
        sources += 1
        destinations += 1
    total = int(counts.sum())
    kind = np.int32 if total <= np.iinfo(np.int32).max else np.int64
    starts = np.zeros(h * w + 1, kind)
    np.cumsum(counts, out=starts[1:])
    position = np.arange(h * w, dtype=kind).reshape(h, w)
    free = starts[:-1].reshape(h, w).copy()
    columns, values = np.empty(total, kind), np.empty(total, np.float32)

    def put(rows: NDArray[Any], to: NDArray[Any], value: Any) -> None:
        columns[rows], values[rows] = to, value
        rows += 1  # a view of `free`

    for dy, dx, p in reversed(ahead):
        (_, rows), (to, _), (value, _) = (slice_ends(x, dy, dx) for x in (free, position, planes[p]))
        put(rows, to, value)
    put(free, position, 1)
    for dy, dx, p in ahead:
        (rows, _), (_, to), (value, _) = (slice_ends(x, dy, dx) for x in (free, position, planes[p]))
        put(rows, to, value)
    _check_values(values)
    matrix = csr_array((values, columns, starts), shape=(h * w, h * w))
    matrix.has_canonical_format = True  # sorted and without duplicates
    return matrix


def _check_matrix(given: Any, size: tuple[int, int]) -> csr_array:
    n = size[0] * size[1]
    source = given if issparse(given) else to_numpy(given, "the affinity matrix")
    if source.dtype.kind not in "biuf":
        raise InputError(f"the affinity matrix is of type {source.dtype}; give numbers in [0, 1].")
    if source.shape != (n, n):
        raise InputError(
            f"the affinity matrix is {list(source.shape)} and the grid {_format_size(size)}; give [{n}, {n}], one row "
            "and one column per position."
        )
    matrix = csr_array(source, dtype=np.float32, copy=True)
    matrix.sum_duplicates()
    _check_values(matrix.data)
    gap = float(abs(matrix - matrix.T).max())
    if gap > SLACK:
        raise InputError(
            f"the affinity matrix is not symmetric (two values that mirror each other differ by {gap:g}); "
            "give (a + a.T) / 2."
        )
    if gap:
        matrix = csr_array((matrix + matrix.T) / 2, dtype=np.float32)
    diagonal = matrix.diagonal()
    off = int(np.abs(diagonal - 1).argmax())
    if abs(diagonal[off] - 1) > SLACK:
        raise InputError(
            f"the affinity of position {off} with itself is {diagonal[off]:g}; give a matrix with ones on its diagonal."
        )
    matrix.setdiag(1)
    return matrix


def _check_values(values: NDArray[np.float32]) -> None:
    """Raise InputError for values outside [0, 1]; clip those outside by rounding in place."""
    _check_range(float(values.min(initial=0)), float(values.max(initial=1)))
    np.clip(values, 0, 1, out=values)


def _check_range(low: float, high: float) -> None:
    """Raise InputError for a minimum or maximum outside [0, 1], or nan."""
    if np.isnan(low):
        raise InputError("the affinities hold nan; give numbers in [0, 1].")
    if low < -SLACK or high > 1 + SLACK:
        raise InputError(f"the affinities go from {min(low, 0):g} to {high:g}; give numbers in [0, 1].")


def _check_offsets(ahead: list[tuple[int, int, int]]) -> None:
    """Raise InputError unless every pair occurs once; `ahead` is sorted."""
    for dy, dx, _ in ahead[:1]:
        if (dy, dx) <= (0, 0):
            raise InputError(
                f"the offset ({dy}, {dx}) does not point ahead in reading order; give each pair once, as "
                "make_half_disc does."
            )
    for (dy, dx, _), after in pairwise(ahead):
        if after[:2] == (dy, dx):
            raise InputError(f"the offset ({dy}, {dx}) comes twice; give each pair once, as make_half_disc does.")


def check_grid_size(size: Sequence[int]) -> tuple[int, int]:
    """Return (h, w) as ints; raise InputError unless they are two integers of at least 1."""
    try:
        h, w = map(index, size)
    except (TypeError, ValueError):
        raise InputError(f"size={size!r}; give the height and the width of the grid, such as (94, 125).") from None
    if h < 1 or w < 1:
        raise InputError(f"the grid is {h}x{w}; give at least one position.")
    return h, w


def to_numpy(values: Any, what: str) -> NDArray[Any]:
    """Convert an array or tensor to numpy, half precision to float32; raise InputError where it fails."""
    try:
        if isinstance(values, torch.Tensor):
            tensor = values.detach().cpu()
            return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} cannot be read as an array ({error}).") from None


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
