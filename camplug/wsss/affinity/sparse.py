"""Affinities of the positions of a grid as one sparse symmetric matrix."""

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

SLACK = 1e-6  # what rounding in float32 may add


class SparseAffinity:
    """How much the positions of a grid belong together: a_ij = a_ji in [0, 1], a_ii = 1, most of them 0 and not stored.

    Made from a matrix that is checked, or by `from_pairs` from planes of pairs; what is made from planes on a GPU stays
    there, for walks that are made there.

    Args:
        matrix: [n, n] with n = h * w, positions in row-major order: one of scipy's sparse matrices, or a small dense
            array or tensor. It is copied.
        size: (h, w) of the grid.

    Attributes:
        matrix: scipy's `csr_array` [n, n] float32 with sorted columns; 4 bytes for a value and 4 for its place. Of
            planes on a GPU it is made when it is asked for.
        size: (h, w).
        device: of the planes that it was made of; else the CPU.

    Raises:
        InputError: a shape that does not fit the grid, a value outside [0, 1] or nan, a matrix that is not symmetric,
            or has something other than 1 on its diagonal.

    >>> SparseAffinity([[1, 0.5], [0.5, 1]], size=(1, 2))
    SparseAffinity(1x2, 4 values)
    """

    size: tuple[int, int]
    table: Table | None = None  # where planes were not on the CPU

    def __init__(self, matrix: Any, size: Sequence[int]) -> None:
        self.size = check_grid_size(size)
        self.matrix = _check_matrix(matrix, self.size)

    @cached_property
    def matrix(self) -> csr_array:
        """The matrix."""
        assert self.table is not None  # else it is set
        return self.table.to_matrix()

    @property
    def device(self) -> torch.device:
        """The device of the values."""
        return torch.device("cpu") if self.table is None else self.table.values.device

    @classmethod
    def from_pairs(cls, planes: Any, offsets: Sequence[Offset], size: Sequence[int] | None = None) -> SparseAffinity:
        """The affinity whose pairs stand in planes: planes[p, y, x] is that of (y, x) and (y + dy, x + dx).

        Values of pairs that leave the grid are not looked at.

        Args:
            planes: [P, h, w] array or tensor, in [0, 1].
            offsets: the P offsets (dy, dx), each pair once: dy > 0, or dy = 0 and dx > 0; see `make_half_disc`.
            size: (h, w); that of the planes if left out.

        Raises:
            InputError: shapes that do not fit one another, an offset that points backwards or comes twice, a value
                outside [0, 1] or nan.

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
    """The matrix, written straight to its places.

    A row's columns rise with (dy, dx), so all rows are filled at once, offset after offset; `free` is where each row
    goes on. Nothing is sorted and nothing is held beside the result but a few numbers per position.
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
    """Raises InputError for a value outside [0, 1]; moves what rounding put outside back, in place."""
    _check_range(float(values.min(initial=0)), float(values.max(initial=1)))
    np.clip(values, 0, 1, out=values)


def _check_range(low: float, high: float) -> None:
    """The least and the greatest value; nan anywhere makes both nan."""
    if np.isnan(low):
        raise InputError("the affinities hold nan; give numbers in [0, 1].")
    if low < -SLACK or high > 1 + SLACK:
        raise InputError(f"the affinities go from {min(low, 0):g} to {high:g}; give numbers in [0, 1].")


def _check_offsets(ahead: list[tuple[int, int, int]]) -> None:
    """Raises InputError unless every pair comes once; `ahead` is sorted."""
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
    """(h, w) as plain ints; raises InputError unless these are two whole numbers of at least 1."""
    try:
        h, w = map(index, size)
    except (TypeError, ValueError):
        raise InputError(f"size={size!r}; give the height and the width of the grid, such as (94, 125).") from None
    if h < 1 or w < 1:
        raise InputError(f"the grid is {h}x{w}; give at least one position.")
    return h, w


def to_numpy(values: Any, what: str) -> NDArray[Any]:
    """An array or tensor as a numpy array, half-precision floats as float32; raises InputError where it cannot be."""
    try:
        if isinstance(values, torch.Tensor):
            tensor = values.detach().cpu()
            return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} cannot be read as an array ({error}).") from None


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
