"""Means with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from camplug.errors import InputError


@dataclass(frozen=True)
class Interval:
    """Mean of some values with its confidence interval.

    Attributes:
        mean: mean; nan without values.
        low, high: ends of the interval.
        count: number of values; nan does not count.
    """

    mean: float
    low: float
    high: float
    count: int


def bootstrap_mean(values: ArrayLike, *, confidence: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """Compute the mean of values and its percentile bootstrap interval.

    The mean is computed anew on `draws` samples with replacement; the interval holds the middle `confidence` of them.
    Values that are nan are left out and not counted.

    Args:
        values: [N].
        confidence: share of samples inside the interval, above 0 and below 1.
        draws: number of samples.
        seed: seed of the samples; the same values in the same order give the same interval.

    Raises:
        InputError: the confidence is not between 0 and 1, or no draw.

    >>> bootstrap_mean([2.0, 2.0, 2.0])
    Interval(mean=2.0, low=2.0, high=2.0, count=3)
    """
    if not 0 < confidence < 1 or draws < 1:
        raise InputError(f"confidence={confidence}, draws={draws}; give a share between 0 and 1, and at least 1 draw.")
    known = np.asarray(values, dtype=np.float64).ravel()
    known = known[~np.isnan(known)]
    n = len(known)
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    generator = np.random.default_rng(seed)
    rows = max(1, 10**6 // n)  # draws that fit in a few megabytes
    means: list[float] = []
    while len(means) < draws:
        picked = generator.integers(0, n, (min(rows, draws - len(means)), n))
        means.extend(known[picked].mean(1).tolist())
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(known.mean()), float(low), float(high), n)


def share_as_good(value: float, random: Sequence[float]) -> float:
    r"""Compute the share of random values that are at least as high as a value, the value itself counted.

    .. math:: p = \frac{1 + \#\{j : r_j \ge v\}}{1 + R}

    This is the p value of a permutation test: if the value is one of the same kind as the R random ones, p is at most
    a with probability a (up to the grid of 1 / (1 + R)).

    >>> share_as_good(0.9, [0.1, 0.2, 0.95])
    0.5
    """
    return (1 + sum(r >= value for r in random)) / (1 + len(random))
