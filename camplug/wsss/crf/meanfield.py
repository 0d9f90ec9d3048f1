"""Mean-field iteration on the CPU. Krähenbühl and Koltun, NIPS 2011, algorithm 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from camplug.wsss.crf.lattice import NARROW, Floats, Lattice

WIDE = 12  # columns above which weighted sums of rows by torch are faster than scipy's products
ROWS = 4096  # pixels that are updated at a time; their marginals fit the cache of a core
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
    huge = bool(ones.max() > _SAFE)
    q, q_last = -others, -last
    _apply_softmax(q, q_last, q, q_last, huge)
    each = np.ones(others.shape[1], np.float32)
    respond = _choose_filter(lattices, others.shape[1])
    for _ in range(iterations):
        for part, logits in respond(q):
            last_logits = ones[part] - logits @ each
            np.subtract(logits, others[part], out=logits)
            last_logits -= last[part]
            _apply_softmax(logits, last_logits, q[part], q_last[part], huge)
    marginals = np.empty_like(unary)
    marginals[:-1], marginals[-1] = q.T[: len(unary) - 1], q_last
    return marginals


def _apply_softmax(logits: Floats, last: Floats, q: Floats, q_last: Floats, huge: bool) -> None:
    """Write the softmax of logits [P, C] and of the last class [P] to `q` and `q_last`; overwrites the logits."""
    if huge:
        top = np.maximum(logits.max(1), last)
        logits -= top[:, None]
        last -= top
    np.exp(logits, out=logits)
    np.exp(last, out=last)
    total = logits @ np.ones(logits.shape[1], np.float32)
    total += last
    np.divide(logits, total[:, None], out=q)
    np.divide(last, total, out=q_last)


def _make_columns(planes: Floats) -> Floats:
    """Convert planes [C, P] to columns [P, C] in the memory order that is fastest to filter.

    Rows of 4, 8, ... numbers are faster than those of 3 or 7: they are padded with infinite energies, whose marginals
    stay 0.
    """
    count, pixels = planes.shape
    if count <= NARROW:
        return planes.T
    columns = np.full((pixels, -(-count // 4) * 4), np.inf, np.float32)
    columns[:, :count] = planes.T
    return columns


def _choose_filter(lattices: Sequence[Lattice], columns: int) -> Callable[[Floats], Iterator[tuple[slice, Floats]]]:
    """Return a function that computes sum_m A_m Q and yields it by parts of the pixels."""
    if not lattices or columns <= WIDE:
        return partial(_filter_all, lattices)
    return partial(_filter_parts, lattices)


def _filter_all(lattices: Sequence[Lattice], q: Floats) -> Iterator[tuple[slice, Floats]]:
    """Yield sum_m A_m Q of all pixels."""
    if not lattices:
        yield slice(None), np.zeros_like(q)
        return
    answers = lattices[0].filter(q)
    for lattice in lattices[1:]:
        answers += lattice.filter(q)
    yield slice(None), answers


def _filter_parts(lattices: Sequence[Lattice], q: Floats) -> Iterator[tuple[slice, Floats]]:
    """Yield sum_m A_m Q by parts of `ROWS` pixels, so that what follows finds them in the cache."""
    spreads = [lattice.spread(torch.from_numpy(q)) for lattice in lattices]
    for start in range(0, len(q), ROWS):
        part = slice(start, start + ROWS)
        answers, *others = (lattice.slice(spread, part) for lattice, spread in zip(lattices, spreads, strict=True))
        for other in others:
            answers += other
        yield part, answers.numpy()
