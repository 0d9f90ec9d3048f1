"""Mean-field iteration with numpy. Krähenbühl and Koltun, NIPS 2011, algorithm 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camplug.wsss.crf.lattice import NARROW, Floats, Lattice

_SAFE = 60.0  # exp(60) is far below the largest float32


def run_mean_field(lattices: Sequence[Lattice], ones: Floats, unary: Floats, iterations: int) -> Floats:
    """Compute Q after some updates Q = softmax(-U + sum_m A_m Q), from Q = softmax(-U).

    The planes of Q add up to 1, so their filter responses add up to the response to a plane of ones: the last plane is
    not filtered. The softmax needs no maximum: at each pixel the smallest energy is 0 and responses are not negative,
    so the largest logit lies between 0 and the response to ones.

    Args:
        lattices: A_m, each a normalised kernel times its compatibility.
        ones: sum_m A_m 1, [P].
        unary: energies [K, P] with the minimum 0 in each column.
        iterations: number of updates, 0 or more.

    Returns:
        Marginals [K, P].
    """
    others, last = _make_columns(unary[:-1]), unary[-1]
    each = np.ones(others.shape[1], np.float32)
    huge = ones.max() > _SAFE
    q, q_last = -others, -last
    for iteration in range(iterations + 1):
        if iteration:
            q = _apply_filters(lattices, q)
            q_last = ones - q @ each
            q -= others
            q_last -= last
        if huge:
            top = np.maximum(q.max(1), q_last)
            q -= top[:, None]
            q_last -= top
        np.exp(q, out=q)
        np.exp(q_last, out=q_last)
        total = q @ each
        total += q_last
        q /= total[:, None]
        q_last /= total
    marginals = np.empty_like(unary)
    marginals[:-1], marginals[-1] = q.T[: len(unary) - 1], q_last
    return marginals


def _make_columns(planes: Floats) -> Floats:
    """Convert planes [C, P] to columns [P, C] in the memory order that is fastest in `Lattice.filter`.

    Rows of 4, 8, ... numbers are faster than those of 3 or 7: they are padded with infinite energies, whose marginals
    stay 0.
    """
    count, pixels = planes.shape
    if count <= NARROW:
        return planes.T
    columns = np.full((pixels, -(-count // 4) * 4), np.inf, np.float32)
    columns[:, :count] = planes.T
    return columns


def _apply_filters(lattices: Sequence[Lattice], q: Floats) -> Floats:
    """Compute sum_m A_m Q."""
    if not lattices:
        return np.zeros_like(q)
    answers = lattices[0].filter(q)
    for lattice in lattices[1:]:
        answers += lattice.filter(q)
    return answers
