"""ROAD: remove and debias (Rong et al., ICML 2022, https://arxiv.org/abs/2202.00449)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.trust.imputation import impute_pixels
from camplug.trust.perturb import check_maps, count_pixels, rank_pixels
from camplug.trust.score import BATCH_SIZE, Score, score_in_batches

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
"""Default shares of removed pixels."""

Order = Literal["morf", "lerf"]


def road_curve(
    score: Score,
    x: Tensor,
    maps: Tensor,
    *,
    order: Order = "morf",
    fractions: Sequence[float] = FRACTIONS,
    noise: float = 0.01,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Tensor:
    r"""Compute the scores after pixels were removed by noisy linear imputation.

    .. math:: \mathrm{morf}_f = s(\mathrm{impute}(x, [r < f HW])), \quad
        \mathrm{lerf}_f = s(\mathrm{impute}(x, [r \ge (1 - f) HW]))

    with the rank r of a pixel (0 for the largest value): "morf" removes the most relevant pixels first, "lerf" the
    least relevant ones.

    Args:
        score: see `Score`; for instance `ClassScore`.
        x: images [N,C,H,W].
        maps: maps [N,H,W].
        order: "morf" or "lerf".
        fractions: F shares of removed pixels, above 0 and below 1.
        noise: standard deviation of the noise, see `impute_pixels`.
        batch_size: number of images in one forward pass.
        seed: seed of the noise and of the order of pixels with equal values.

    Returns:
        Scores [N,F] in float64 on the CPU.

    Raises:
        InputError: the maps do not fit the images, or the order or a fraction is not allowed.
    """
    check_maps(x, maps)
    if order not in get_args(Order):
        raise InputError(f'order={order!r}; allowed are "morf" (most relevant first) and "lerf".')
    if not fractions or not all(0 < f < 1 for f in fractions):
        raise InputError(f"fractions={tuple(fractions)}; give one or more shares above 0 and below 1.")
    size = (x.shape[2], x.shape[3])
    counts = count_pixels(torch.tensor(fractions, dtype=torch.float64), size).clamp(0, size[0] * size[1] - 1).tolist()
    ranks = rank_pixels(maps if order == "morf" else -maps, seed)
    jobs = [(i, count) for i in range(len(x)) for count in counts]

    def make(start: int, stop: int) -> Tensor:
        return torch.stack(
            [
                impute_pixels(x[i], ranks[i] < count, noise=noise, seed=seed + n)
                for n, (i, count) in enumerate(jobs[start:stop], start)
            ]
        )

    return score_in_batches(score, make, [i for i, _ in jobs], batch_size).view(len(x), len(counts))


def road(
    score: Score,
    x: Tensor,
    maps: Tensor,
    *,
    fractions: Sequence[float] = FRACTIONS,
    noise: float = 0.01,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Tensor:
    r"""Compute the combined ROAD score of each map, [N]; higher is better, 0 is chance.

    .. math:: \mathrm{ROAD} = \frac{1}{2F} \sum_f (\mathrm{lerf}_f - \mathrm{morf}_f)

    Arguments and errors are those of `road_curve`.
    """
    lerf, morf = (
        road_curve(score, x, maps, order=order, fractions=fractions, noise=noise, batch_size=batch_size, seed=seed)
        for order in ("lerf", "morf")
    )
    return (lerf - morf).mean(1) / 2
