"""Random walk of activation maps over affinities, with sparse matrices.

AffinityNet (Ahn & Kwak, CVPR 2018) and IRN (Ahn, Cho & Kwak, CVPR 2019) spread an activation map x along affinities a:
x* = P^t x with P = D^-1 W, W = a^beta elementwise and D_ii = sum over j of W_ij. Each row of P sums to 1, so a step
replaces every value by an average over its neighbours: constants are preserved, sums are not. Their code multiplies
maps as rows by W D^-1 from the right, which is the same as W is symmetric, and squares that dense matrix, 8 times for
256 steps. Here P stays sparse and is only multiplied by maps.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from operator import index
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import csr_array

from camplug.errors import InputError
from camplug.plug import resolve_device
from camplug.wsss.affinity.sparse import SparseAffinity

Backend: TypeAlias = Literal["scipy", "torch"]
BACKENDS = ("scipy", "torch")
TOLERANCE = 1e-6
STEPS, BETA = 256, 10.0  # those of IRN
FLOATS = ("float32", "float64", "float16", "bfloat16")
MAX_STEPS = 10**6

A = TypeVar("A", NDArray[Any], torch.Tensor)


def propagate(
    maps: A,
    affinity: SparseAffinity,
    steps: int = STEPS,
    beta: float = BETA,
    *,
    tolerance: float | None = TOLERANCE,
    backend: Backend | None = None,
    device: torch.device | str | None = None,
) -> A:
    """Propagate maps by a random walk: P^steps x, with P = D^-1 W and W = affinity^beta elementwise.

    By default P^steps x is a sum of Chebyshev polynomials, with 78 products for 256 steps (see
    `compute_chebyshev_terms` for the error); `tolerance=None` computes all `steps` products.

    Maps in float64 are computed in float64, others in float32, whose rounding errors amount to about 1e-5 of the
    largest value in 256 steps.

    Args:
        maps: floats [K, h, w], an array or a tensor; K may be 0. Values may be negative: the walk is linear.
        affinity: affinity of a grid of h x w positions.
        steps: number of steps; 256 in IRN (its exp_times is log2 of this) and AffinityNet, 64 in SEAM.
        beta: exponent of affinities, above 0; 10 in IRN, 8 in AffinityNet.
        tolerance: bound of the error, below 1 (`compute_chebyshev_terms`); None for all products.
        backend: "scipy", one thread of the CPU, or "torch", its sparse CSR product on any device that supports it. By
            default torch, but scipy on a CPU for which torch has no MKL, whose products are three times as fast.
        device: device of torch; by default that of the maps, for arrays that of the affinity.

    Returns:
        Maps [K, h, w], float32 or float64; an array for an array, a tensor on the same device for a tensor.

    Raises:
        InputError: maps have another size than the affinity or are not finite, or an option is out of its range.

    Two positions with affinity 1/2: P = [[2/3, 1/3], [1/3, 2/3]] for beta = 1.

    >>> pair = SparseAffinity([[1, 0.5], [0.5, 1]], size=(1, 2))
    >>> propagate(np.array([[[1.0, 0.0]]]), pair, steps=2, beta=1).round(4)
    array([[[0.5556, 0.4444]]])
    """
    _check_affinity(affinity)
    home = maps.device if isinstance(maps, torch.Tensor) else affinity.device
    if device is None:
        device = home
        if backend is None and home.type == "cpu" and not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
            backend = "scipy"
    double = str(getattr(maps, "dtype", "")).endswith("float64")
    return Walk(affinity, beta, double=double, backend=backend or "torch", device=device)(maps, steps, tolerance)


class Walk:
    """Matrix P = D^-1 W of an affinity, for several calls.

    It has its own values and shares the indices of the affinity: 4 bytes per value in float32.

    Args:
        affinity: affinities a_ij.
        beta: exponent, W = a^beta elementwise; above 0.
        double: compute in float64 instead of float32.
        backend: see `propagate`.
        device: device of the torch backend.

    Raises:
        InputError: beta is not above 0, or another option is invalid.

    >>> walk = Walk(SparseAffinity([[1, 0.5], [0.5, 1]], size=(1, 2)), beta=1, double=True)
    >>> walk(np.array([[[1.0, 0.0]]]), steps=1).round(4)
    array([[[0.6667, 0.3333]]])
    """

    def __init__(
        self,
        affinity: SparseAffinity,
        beta: float = BETA,
        *,
        double: bool = False,
        backend: Backend = "scipy",
        device: torch.device | str | None = None,
    ) -> None:
        _check_affinity(affinity)
        if not (isinstance(beta, (int, float)) and 0 < beta < float("inf")):
            raise InputError(f"beta={beta!r}; give a number above 0 (IRN: 10), with 0 all neighbours would be alike.")
        if backend not in BACKENDS:
            raise InputError(f"backend={backend!r}; give one of {', '.join(BACKENDS)}.")
        self.size = affinity.size
        self._type = torch.float64 if double else torch.float32
        self._device = None if backend == "scipy" else resolve_device(device)
        self._matrix: Any
        if self._device is not None and affinity.table is not None and affinity.device == self._device:
            self._matrix = _make_torch_csr(affinity.table.compute_transitions(float(beta), self._type), affinity.device)
            return
        places, starts = affinity.matrix.indices, affinity.matrix.indptr
        values = _compute_transitions(affinity.matrix, float(beta), np.float64 if double else np.float32)
        if self._device is None:
            self._matrix = csr_array((values, places, starts), shape=affinity.matrix.shape)
        else:
            self._matrix = _make_torch_csr([torch.from_numpy(part) for part in (starts, places, values)], self._device)

    def __call__(self, maps: A, steps: int = STEPS, tolerance: float | None = TOLERANCE) -> A:
        """Propagate maps; see `propagate`."""
        coefficients, _ = compute_chebyshev_terms(steps, tolerance)
        columns = self._make_columns(maps if isinstance(maps, torch.Tensor) else np.asarray(maps))
        if tolerance is None:
            for _ in range(steps):
                columns = self._matrix @ columns
        else:
            series = _sum_series if self._device is None else _sum_series_in_torch
            columns = series(self._matrix, columns, coefficients.tolist())
        made: A = self._make_maps(columns, maps)
        return made

    def _make_columns(self, maps: Any) -> Any:
        """Copy maps to contiguous columns [n, K] on the device of the walk."""
        h, w = self.size
        kind = str(maps.dtype).removeprefix("torch.")
        if maps.ndim != 3 or kind not in FLOATS:
            raise InputError(f"the maps are {kind} {list(maps.shape)}; give floats [K, h, w].")
        if tuple(maps.shape[1:]) != (h, w):
            raise InputError(
                f"the maps are {maps.shape[1]}x{maps.shape[2]} and the affinity is {h}x{w}; resize the maps to "
                f"{h}x{w} before the walk."
            )
        given = maps.detach() if isinstance(maps, torch.Tensor) else torch.from_numpy(np.array(maps, order="C"))
        flat = given.to(self._device or "cpu", self._type).reshape(-1, h * w)
        columns = flat.T.clone(memory_format=torch.contiguous_format)
        if not columns.isfinite().all():
            raise InputError("the maps hold nan or infinity; give finite numbers (a map without evidence is 0).")
        return columns if self._device is not None else columns.numpy()

    def _make_maps(self, columns: Any, like: Any) -> Any:
        """Convert columns [n, K] to maps [K, h, w] of the type and device of `like`."""
        h, w = self.size
        maps = torch.as_tensor(columns).T.contiguous().view(-1, h, w)
        return maps.to(like.device) if isinstance(like, torch.Tensor) else maps.cpu().numpy()


def compute_chebyshev_terms(steps: int, tolerance: float | None = TOLERANCE) -> tuple[NDArray[np.float64], float]:
    """Compute the Chebyshev coefficients of t^steps, truncated where the rest is small, and a bound of the error.

    On [-1, 1], t^s = sum over k of c_k T_k(t) with c_k = 2^(1-s) C(s, (s-k)/2) for k = s, s-2, ... (half of it at
    k = 0) and 0 between; all c_k >= 0, and their sum is 1 as T_k(1) = 1. The series is cut after the smallest K for
    which bound = c_{K+1} + ... + c_s <= tolerance; K is about sqrt(2 s ln(2 / tolerance)), and is the number of
    products of a walk.

    The bound holds for the walk: let y = P^s x and y' the sum of c_k T_k(P) x up to K. Then
    |y' - y|_D <= bound |x|_D in the norm |x|_D^2 = sum of D_i x_i^2. Proof: with S = D^-1/2 W D^-1/2 and z = D^1/2 x,
    D^1/2 (y' - y) = -(c_{K+1} T_{K+1}(S) + ... + c_s T_s(S)) z. S is symmetric and similar to P, a row-stochastic
    matrix, so its eigenvalues are real and in [-1, 1], where |T_k| <= 1; hence each T_k(S) has a 2-norm of at most 1,
    and |y' - y|_D = |D^1/2 (y' - y)|_2 <= (c_{K+1} + ... + c_s) |z|_2 = bound |x|_D. Constant maps reach the bound:
    they are multiplied by 1 - bound.

    Args:
        steps: s, 0 to 1,000,000.
        tolerance: bound of the error, 0 or more and below 1; None for the whole series.

    Returns:
        Coefficients c_0 to c_K, float64, and the bound.

    Raises:
        InputError: an argument is out of its range.

    t^3 = 3/4 T_1 + 1/4 T_3:

    >>> compute_chebyshev_terms(3, tolerance=0.3)
    (array([0.  , 0.75]), 0.25)
    >>> coefficients, bound = compute_chebyshev_terms(256)
    >>> len(coefficients) - 1, bound < 1e-6
    (78, True)
    """
    try:
        steps = index(steps)
    except TypeError:
        raise InputError(f"steps={steps!r}; give a whole number.") from None
    if not 0 <= steps <= MAX_STEPS:
        raise InputError(f"steps={steps}; give 0 to {MAX_STEPS}.")
    if tolerance is not None and not 0 <= tolerance < 1:
        raise InputError(f"tolerance={tolerance!r}; give a number from 0 to below 1, or None for all products.")
    first = steps % 2
    k = np.arange(first, steps, 2)
    # from c_{k+2} / c_k and the sum of 1: without factorials nothing overflows or cancels
    series = np.cumprod(np.append(1.0, (steps - k) / (steps + k + 2)))
    if first == 0:
        series[0] /= 2
    series /= series.sum()
    rest = np.append(np.cumsum(series[:0:-1])[::-1], 0.0)  # rest after each coefficient; decreases to 0
    cut = len(series) - 1 if tolerance is None else int(np.argmax(rest <= tolerance))
    coefficients = np.zeros(first + 2 * cut + 1)
    coefficients[first::2] = series[: cut + 1]
    return coefficients, float(rest[cut])


def _check_affinity(affinity: Any) -> None:
    if not isinstance(affinity, SparseAffinity):
        raise InputError(f"the affinity is of type {type(affinity).__name__}; give a SparseAffinity.")


def _sum_series(matrix: Any, x: Any, coefficients: list[float]) -> Any:
    """Compute the sum of c_k T_k(P) x with T_{k+1} = 2 P T_k - T_{k-1}, in numpy."""
    total = x * coefficients[0]
    before, now = x, x
    for k, c in enumerate(coefficients[1:], start=1):
        after = matrix @ now
        if k > 1:
            after *= 2
            after -= before
        before, now = now, after
        if c:
            total += now * c
    return total


def _sum_series_in_torch(matrix: torch.Tensor, x: torch.Tensor, coefficients: list[float]) -> torch.Tensor:
    """Compute the sum of `_sum_series` in torch, in place with two operations per term; overwrites x."""
    total, before, now = x * coefficients[0], x, x
    for k, c in enumerate(coefficients[1:], start=1):
        after = matrix @ now if k == 1 else torch.addmm(before, matrix, now, beta=-1, alpha=2, out=before)
        before, now = now, after
        if c:
            total.add_(now, alpha=c)
    return total


def _compute_transitions(matrix: csr_array, beta: float, dtype: DTypeLike) -> NDArray[Any]:
    """Compute the values of P, in the order of the affinity's."""
    values: NDArray[Any] = matrix.data.astype(dtype)
    torch.from_numpy(values).pow_(beta)  # ten times as fast as np.power
    values[values < np.finfo(np.float32).tiny] = 0  # denormal numbers are slow, and negligible beside the diagonal
    starts = matrix.indptr[:-1]  # no row is empty, as the diagonal is 1
    sums = np.add.reduceat(values, starts, dtype=np.float64)
    values /= np.repeat(sums.astype(dtype), np.diff(matrix.indptr))
    return values


def _make_torch_csr(parts: Sequence[torch.Tensor], device: torch.device | str) -> torch.Tensor:
    """Make a sparse matrix [n, n] on a device from row starts [n + 1], columns and values."""
    starts, columns, values = parts
    n = len(starts) - 1
    try:
        with warnings.catch_warnings():
            notes = "Sparse CSR tensor support is in beta|Sparse invariant checks are implicitly disabled"
            warnings.filterwarnings("ignore", notes, UserWarning)
            return torch.sparse_csr_tensor(starts, columns, values, (n, n), device=device, check_invariants=True)
    except (RuntimeError, AssertionError) as error:  # sparse operations are missing there
        reason = str(error).split("\n", 1)[0].rstrip(".")
        raise InputError(
            f"torch cannot hold a sparse matrix on device {str(device)!r} ({reason}); give backend='scipy'."
        ) from None
