"""Affinities without training, from colours or from the attention of a vision transformer.

Both are camplug's own definitions, intended as baselines for the learned affinities of AffinityNet and IRN.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as pil
from scipy.sparse import csr_array, identity

from camplug.errors import InputError
from camplug.images.photo import read_photo
from camplug.wsss.affinity.grid import count_cells
from camplug.wsss.affinity.pairs import make_half_disc, slice_ends
from camplug.wsss.affinity.sparse import SparseAffinity, check_grid_size, to_numpy

ROWS = 512  # rows of the attention sorted at once


def compute_colour_affinity(
    photo: Any,
    size: Sequence[int] | None = None,
    *,
    stride: int = 4,
    radius: int = 5,
    sigma: float = 30.0,
) -> SparseAffinity:
    """Compute a_ij = exp(-|I_i - I_j|^2 / (2 sigma^2)) of an RGB photograph I for positions closer than `radius`.

    The photograph is reduced to the grid by averages over cells. This is the colour term of a bilateral filter, cut to
    a disc. A walk with W = a^beta has the colour scale sigma / sqrt(beta): 9.5 for the defaults of both.

    Args:
        photo: uint8 array [H, W, 3] or [H, W], PIL image, or path.
        size: (h, w) of the grid; by default the photograph's sides over `stride`, rounded up.
        stride: pixels per position.
        radius: radius in positions; see `make_half_disc`.
        sigma: standard deviation in steps of 8-bit colour, above 0.

    Raises:
        InputError: the photograph cannot be read, or an option is out of its range.

    >>> edge = np.zeros((8, 16, 3), np.uint8)
    >>> edge[:, 8:] = 255
    >>> affinity = compute_colour_affinity(edge, radius=2)
    >>> affinity
    SparseAffinity(2x4, 40 values)
    >>> affinity.matrix.toarray()[1].reshape(2, 4)  # second position with all others
    array([[1., 1., 0., 0.],
           [1., 1., 0., 0.]], dtype=float32)
    """
    if not (isinstance(sigma, (int, float)) and 0 < sigma < float("inf")):
        raise InputError(f"sigma={sigma!r}; give a number above 0, in steps of 8-bit colour.")
    image = read_photo(photo)
    h, w = _compute_size(image.height, image.width, stride) if size is None else check_grid_size(size)
    colours = np.asarray(image.resize((w, h), pil.Resampling.BOX), np.float32).transpose(2, 0, 1)
    offsets = make_half_disc(radius)
    planes = np.zeros((len(offsets), h, w), np.float32)
    for plane, (dy, dx) in zip(planes, offsets, strict=True):
        source, destination = slice_ends(colours, dy, dx)
        slice_ends(plane, dy, dx)[0][:] = np.exp(((source - destination) ** 2).sum(0) / (-2 * sigma * sigma))
    return SparseAffinity.from_pairs(planes, offsets)


def compute_attention_affinity(attention: Any, size: Sequence[int], *, keep: int = 32) -> SparseAffinity:
    """Compute a sparse affinity from the attention between the tokens of a vision transformer.

    The mean over heads b is made symmetric, s = (b + b^T) / 2; a_ij = s_ij / sqrt(m_i m_j), with m_i the largest s_ij
    of row i off the diagonal, is symmetric and in [0, 1] (s_ij is at most m_i and at most m_j), and not dominated by
    single strong tokens. A pair is kept if it is among the `keep` strongest of either of its rows, in s. The diagonal
    is 1. Such an affinity is less sharp than a learned one; a beta near 1 suits the walk.

    Args:
        attention: non-negative attention [n, n] or [heads, n, n] of the n = h * w image tokens, in row-major order,
            without the class token.
        size: (h, w).
        keep: number of entries per row, at least 1.

    Raises:
        InputError: shapes do not fit, values are negative or nan, or an option is out of its range.

    >>> attention = [[0.2, 0.6, 0.2], [0.4, 0.2, 0.4], [0.1, 0.1, 0.8]]
    >>> compute_attention_affinity(attention, size=(1, 3), keep=1).matrix.toarray().round(2)
    array([[1.  , 1.  , 0.  ],
           [1.  , 1.  , 0.71],
           [0.  , 0.71, 1.  ]], dtype=float32)
    """
    h, w = check_grid_size(size)
    n = h * w
    given = to_numpy(attention, "the attention")
    if given.ndim not in (2, 3) or given.shape[-2:] != (n, n) or not given.size:
        raise InputError(
            f"the attention is {list(given.shape)} and the grid {h}x{w}; give [{n}, {n}] or [heads, {n}, {n}], of the "
            "image tokens only (no class token)."
        )
    keep = _check_at_least_one(keep, "keep")
    mean = given.mean(0, dtype=np.float64) if given.ndim == 3 else given.astype(np.float64)
    if not (np.isfinite(mean).all() and given.min() >= 0):
        raise InputError("the attention holds nan, infinity or negative values; give it after its softmax.")
    strength = (mean + mean.T) / 2
    np.fill_diagonal(strength, 0)
    rows, columns = _find_strongest(strength, min(keep, n - 1))
    top = strength.max(1)
    scale = np.sqrt(np.divide(1, top, out=np.zeros(n), where=top > 0))
    values = strength[rows, columns] * scale[rows] * scale[columns]
    chosen = csr_array((values, (rows, columns)), shape=(n, n))
    return SparseAffinity(chosen.maximum(chosen.T) + csr_array(identity(n)), (h, w))


def _find_strongest(values: NDArray[Any], keep: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find rows and columns of the `keep` largest values per row, in blocks of rows to save memory."""
    if keep == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    n = len(values)
    parts = [np.argpartition(values[i : i + ROWS], -keep, axis=1)[:, -keep:] for i in range(0, n, ROWS)]
    return np.repeat(np.arange(n), keep), np.concatenate(parts).ravel()


def _compute_size(height: int, width: int, stride: int) -> tuple[int, int]:
    return count_cells(height, width, _check_at_least_one(stride, "stride"))


def _check_at_least_one(value: Any, what: str) -> int:
    try:
        number = index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise InputError(f"{what}={value!r}; give a whole number of at least 1.")
    return number
