"""Permutohedral lattice: Gaussian filter in d dimensions, in time linear in the number of points.

Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.crf.simplices import find_neighbours, find_simplices

Floats = NDArray[np.float32]

NARROW = 2  # up to this number of columns, products by column are faster
_DERIVED = ("slices", "_splats")  # cached properties made of weights


class Lattice:
    """Approximation of the filter y_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j over N points f in d dimensions, with i = j.

    The points are embedded in the hyperplane of R^(d+1) whose coordinates add up to 0, where the lattice tiles space
    with simplices. A value is splatted on the d + 1 corners of the simplex around its point with barycentric weights,
    blurred with [1/2, 1, 1/2] along each of the d + 1 directions of the lattice, and sliced from the same corners with
    the same weights (section 3 of the paper). Corners without points do not exist: what is blurred there is lost. The
    factor 1 / (1 + 2^-d) replaces the exact normalisation.

    It is built and stays on the device of the points. On the CPU, `filter` takes arrays; `spread` and `slice` take
    tensors on any device.

    Args:
        features: points [N, d], an array or a tensor, in standard deviations of the Gaussian along each axis.
        images: number of each point's image, int64 [N]; points of different images do not meet. None: there is one.

    Raises:
        InputError: features have another shape or are not finite, or points are too far apart for the lattice.

    Attributes:
        numbers: corners of each point's simplex, int32 [N, d + 1].
        weights: barycentric weights of these corners, float32 [N, d + 1].
        ahead: next corner in each direction, int64 [d + 1, M + 1]; M if there is none. Column M is a placeholder.
        behind: previous corner in each direction [d + 1, M + 1]; M if there is none.
        scale: factor 1 / (1 + 2^-d) times those of `multiply`.

    >>> lattice = Lattice(np.array([[0.0], [1.0], [50.0]]))
    >>> lattice.filter(np.array([[1.0], [0.0], [0.0]], np.float32)).round(3)  # exactly: 1, 0.607, 0
    array([[0.833],
           [0.589],
           [0.   ]], dtype=float32)
    """

    def __init__(self, features: NDArray[Any] | Tensor, images: Tensor | None = None) -> None:
        points = _check_features(features)
        simplices = find_simplices(points, images)
        self.numbers, self.weights = simplices.numbers, simplices.weights
        self.ahead, self.behind = find_neighbours(simplices)
        self.scale = 1 / (1 + 2.0 ** -points.shape[1])

    @property
    def points(self) -> int:
        """Number N of points."""
        return len(self.numbers)

    @property
    def corners(self) -> int:
        """Number M of corners of all simplices with points."""
        return self.ahead.shape[1] - 1

    @property
    def device(self) -> torch.device:
        """Device of the lattice."""
        return self.numbers.device

    @cached_property
    def slices(self) -> sparse.csr_array:
        """Weights [N, M + 1], d + 1 per row, as a scipy matrix; the transpose splats."""
        n, width = self.numbers.shape
        starts = np.arange(0, n * width + 1, width, dtype=np.int32 if n * width < 2**31 else np.int64)
        parts = (self.weights.view(-1).numpy(), self.numbers.view(-1).numpy(), starts)
        return sparse.csr_array(parts, shape=(n, self.corners + 1))

    def filter(self, values: Floats) -> Floats:
        """Filter values [N, C], float32, on the CPU.

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

    def spread(self, values: Tensor) -> Tensor:
        """Splat and blur values [N, C], float32: those of the corners [M + 1, C].

        All are weighted sums of rows by `embedding_bag`, without intermediate tensors and atomic additions: results are
        the same in every run.
        """
        pixels, starts, shares = self._splats
        spread = F.embedding_bag(pixels, values, starts, mode="sum", per_sample_weights=shares)
        lines, weights = self._lines
        for line in lines[:-1]:
            spread = F.embedding_bag(line, spread, mode="sum", per_sample_weights=weights)
        return F.embedding_bag(lines[-1], spread, mode="sum", per_sample_weights=weights * self.scale)

    def slice(self, spread: Tensor, points: slice = slice(None)) -> Tensor:
        """Return the values of points [N, C] from those of the corners [M + 1, C]."""
        return F.embedding_bag(self.numbers[points], spread, mode="sum", per_sample_weights=self.weights[points])

    def normalize(self) -> Lattice:
        """Return the lattice of N K N with symmetric normalisation: K is this filter, N = diag(1 / sqrt(K 1))."""
        return self._copy_with(weights=self.weights / (self.sum_rows() + 1e-20).sqrt()[:, None])

    def sum_rows(self) -> Tensor:
        """Filter a column of ones, [N]."""
        if self.device.type == "cpu":
            return torch.from_numpy(self.filter(np.ones((self.points, 1), np.float32))[:, 0])
        return self.slice(self.spread(self.weights.new_ones(self.points, 1)))[:, 0]

    def multiply(self, factor: float) -> Lattice:
        """Return a lattice with results `factor` times as large; it shares all tensors."""
        return self._copy_with(scale=self.scale * factor)

    def _copy_with(self, **changes: Any) -> Lattice:
        other = copy(self)
        if "weights" in changes:
            for name in _DERIVED:
                other.__dict__.pop(name, None)
        other.__dict__.update(changes)
        return other

    def _filter(self, values: Floats) -> Floats:
        """Filter values [N] or [N, C]."""
        spread: Floats = self.slices.T @ values
        sides, other = np.empty_like(spread), np.empty_like(spread)
        for ahead, behind in zip(self.ahead.numpy(), self.behind.numpy(), strict=True):
            np.take(spread, ahead, axis=0, out=sides, mode="clip")  # skips bounds checks and a copy
            np.take(spread, behind, axis=0, out=other, mode="clip")
            sides += other
            sides *= np.float32(0.5)
            spread += sides
        spread *= np.float32(self.scale)
        sliced: Floats = self.slices @ spread
        return sliced

    @cached_property
    def _splats(self) -> tuple[Tensor, Tensor, Tensor]:
        """Points of each corner one after another, where those of a corner begin [M + 1], and their weights."""
        if self.device.type == "cpu":
            splats = self.slices.T.tocsr()
            indices, starts = splats.indices, splats.indptr[:-1]
            return torch.from_numpy(indices), torch.from_numpy(starts), torch.from_numpy(splats.data)
        corners, order = self.numbers.view(-1).sort(stable=True)
        starts = torch.searchsorted(corners, torch.arange(self.corners + 1, device=self.device, dtype=torch.int32))
        return (order // self.numbers.shape[1]).int(), starts.int(), self.weights.view(-1)[order]

    @cached_property
    def _lines(self) -> tuple[Tensor, Tensor]:
        """Corners with the next and the previous one of each, int32 [d + 1, M + 1, 3], and their weights [M + 1, 3]."""
        own = torch.arange(self.corners + 1, device=self.device).expand_as(self.ahead)
        weights = torch.tensor([1, 0.5, 0.5]).to(self.device)
        return torch.stack([own, self.ahead, self.behind], -1).int(), weights.repeat(self.corners + 1, 1)


def _check_features(features: NDArray[Any] | Tensor) -> Tensor:
    """Return points [N, d] as a float32 tensor; arrays are checked to be finite."""
    if features.ndim != 2 or 0 in features.shape:
        raise InputError(f"features are {list(features.shape)}; give [N, d], one row for each of one or more points.")
    if isinstance(features, Tensor):
        return features.float()
    if not np.isfinite(features).all():
        raise InputError("features hold nan or infinite values; give finite ones.")
    with np.errstate(over="ignore"):  # the range is checked
        return torch.from_numpy(np.array(features.T, np.float32, order="C")).T
