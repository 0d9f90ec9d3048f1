"""Noisy linear imputation (Rong et al., ROAD, ICML 2022, https://arxiv.org/abs/2202.00449)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camplug.errors import InputError

_STEPS = (
    (0, 1, 1 / 6),
    (1, 0, 1 / 6),
    (1, 1, 1 / 12),
    (1, -1, 1 / 12),
)  # half of the neighbours; the others mirror them


def impute_pixels(x: Tensor, removed: Tensor, *, noise: float = 0.01, seed: int = 0) -> Tensor:
    r"""Replace removed pixels by weighted means of their eight neighbours, and noise.

    .. math:: \hat x_i = \frac{\sum_{j \in N(i)} w_{ij} \hat x_j}{\sum_{j \in N(i)} w_{ij}} + \epsilon_i, \quad
        \epsilon_i \sim \mathcal N(0, \sigma^2)

    with w = 1/6 for the four direct and 1/12 for the four diagonal neighbours inside the image, and :math:`\hat x = x`
    at the pixels that are kept. The values without noise solve one sparse symmetric system. Unlike a constant colour,
    they do not show which pixels were removed.

    Args:
        x: image [C,H,W].
        removed: bool [H,W], true where a pixel is removed.
        noise: standard deviation of the noise.
        seed: seed of the noise.

    Returns:
        The image [C,H,W].

    Raises:
        InputError: the mask does not fit the image, or no pixel is left.
    """
    if removed.shape != x.shape[1:]:
        raise InputError(f"the mask is {list(removed.shape)} for an image {list(x.shape)}; give [H,W].")
    gone = removed.cpu().numpy().astype(bool)
    if not gone.any():
        return x.clone()
    if gone.all():
        raise InputError("all pixels are removed; imputation needs one that is left.")
    values = _solve(x.detach().cpu().double().numpy(), gone)
    shape = (len(x), int(gone.sum()))
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    filled = x.clone()
    filled[:, removed.to(x.device)] = (torch.from_numpy(values) + noise * drawn).to(x)
    return filled


def _solve(image: Any, gone: Any) -> Any:
    """Return the values [C,n] of n missing pixels of an image [C,H,W] without noise."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    h, w = gone.shape
    number = np.full(h * w, -1)
    order = order_by_dissection(h, w)
    chosen = order[gone.ravel()[order]]
    number[chosen] = np.arange(len(chosen))
    number = number.reshape(h, w)
    diagonal, known = np.zeros(gone.sum()), np.zeros((gone.sum(), len(image)))
    rows, columns, weights = [], [], []
    for dy, dx, weight in _STEPS:
        here = (slice(0, h - dy), slice(max(0, -dx), w - max(0, dx)))
        there = (slice(dy, h), slice(max(0, dx), w - max(0, -dx)))
        for a, b in ((here, there), (there, here)):
            own, other, colours = number[a].ravel(), number[b].ravel(), image[:, b[0], b[1]].reshape(len(image), -1)
            missing = own >= 0
            diagonal[own[missing]] += weight
            both = missing & (other >= 0)
            rows.append(own[both])
            columns.append(other[both])
            weights.append(np.full(both.sum(), -weight))
            beside = missing & (other < 0)
            known[own[beside]] += weight * colours[:, beside].T
    n = len(diagonal)
    row, column = np.concatenate([*rows, np.arange(n)]), np.concatenate([*columns, np.arange(n)])
    matrix = sparse.csc_matrix((np.concatenate([*weights, diagonal]), (row, column)), shape=(n, n))
    solver = splu(matrix, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return solver.solve(known)[number[gone]].T


@lru_cache(maxsize=8)
def order_by_dissection(h: int, w: int) -> Any:
    """Return the numbers of the pixels of an image in an order that keeps the factors of the system sparse, [h*w].

    Nested dissection (George, 1973): the two halves of the image, each in such an order, then the line between them.
    The order is that of the whole image, so it serves every mask, and is found faster than by minimum degree.
    """
    numbers = np.arange(h * w).reshape(h, w)
    parts: list[Any] = []

    def cut(block: Any) -> None:
        if block.size <= 4:
            parts.append(block.ravel())
            return
        if block.shape[0] < block.shape[1]:
            block = block.T
        middle = len(block) // 2
        cut(block[:middle])
        cut(block[middle + 1 :])
        parts.append(block[middle])

    cut(numbers)
    return np.concatenate(parts)
