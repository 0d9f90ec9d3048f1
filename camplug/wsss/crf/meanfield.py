"""The mean-field iteration with numpy. Krähenbühl and Koltun, NIPS 2011, algorithm 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camplug.wsss.crf.lattice import NARROW, Floats, Lattice

_SAFE = 60.0  # the exponential of this is far from the largest float32


def run_mean_field(lattices: Sequence[Lattice], ones: Floats, unary: Floats, iterations: int) -> Floats:
    """Q after so many updates Q = softmax(-U + sum_m A_m Q), from Q = softmax(-U).

    All planes of Q add up to 1, and so the answers of the filters to them add up to the answer to a plane of ones: the
    last plane needs no filter. Neither need softmax look for the maximum: at each pixel the least energy is 0 and
    answers are at least 0, so that it lies between 0 and the answer to ones.

    Args:
        lattices: A_m, each a normalised kernel times its compatibility.
        ones: [P] sum_m A_m 1.
        unary: [K, P], the minimum of each column 0.
        iterations: 0 or more.

    Returns:
        [K, P].
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
    """Planes [C, P] as columns [P, C], in the order that `Lattice.filter` likes best.

    Rows of 4, 8, ... numbers move faster than rows of 3 or 7: infinite energies, whose marginals stay 0, fill them up.
    """
    count, pixels = planes.shape
    if count <= NARROW:
        return planes.T
    columns = np.full((pixels, -(-count // 4) * 4), np.inf, np.float32)
    columns[:, :count] = planes.T
    return columns


def _apply_filters(lattices: Sequence[Lattice], q: Floats) -> Floats:
    """sum_m A_m Q."""
    if not lattices:
        return np.zeros_like(q)
    answers = lattices[0].filter(q)
    for lattice in lattices[1:]:
        answers += lattice.filter(q)
    return answers
