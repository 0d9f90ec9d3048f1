"""Deletion and insertion curves (Petsiuk et al., RISE, BMVC 2018, https://arxiv.org/abs/1806.07421)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.plug import send_to
from camplug.trust.perturb import Baseline, check_maps, count_pixels, make_baseline, rank_pixels
from camplug.trust.score import BATCH_SIZE, ClassScore, Score, score_in_batches, take_images

STEPS = 20
"""Default number of steps of a curve; 5 % of the pixels each."""


def deletion_curve(
    score: Score,
    x: Tensor,
    maps: Tensor,
    *,
    baseline: Baseline = "zero",
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Tensor:
    r"""Compute the scores while the pixels of largest map values are replaced by the baseline.

    .. math:: d_k = s(x \odot [r \ge \tfrac{k}{S} HW] + b \odot [r < \tfrac{k}{S} HW]), \quad k = 0, \ldots, S

    with the rank r of a pixel (0 for the largest value) and the baseline b. A faithful map has a curve that falls
    early; `area_under_curve` is the deletion score, lower is better.

    Args:
        score: see `Score`; for instance `ClassScore`.
        x: images [N,C,H,W].
        maps: maps [N,H,W].
        baseline: see `make_baseline`.
        steps: number of steps S.
        batch_size: number of images in one forward pass.
        seed: seed of the order of pixels with equal values.

    Returns:
        Scores [N,S+1] in float64 on the CPU.

    Raises:
        InputError: the maps do not fit the images, or no step.
    """
    check_maps(x, maps)
    return replace_in_order(
        score, x, make_baseline(x, baseline), rank_pixels(maps, seed), range(len(x)), steps=steps, batch_size=batch_size
    )


def insertion_curve(
    score: Score,
    x: Tensor,
    maps: Tensor,
    *,
    baseline: Baseline = "blur",
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Tensor:
    r"""Compute the scores while the pixels of largest map values are inserted into the baseline.

    .. math:: i_k = s(b \odot [r \ge \tfrac{k}{S} HW] + x \odot [r < \tfrac{k}{S} HW]), \quad k = 0, \ldots, S

    A faithful map has a curve that rises early; `area_under_curve` is the insertion score, higher is better. Arguments,
    result and errors are those of `deletion_curve`.
    """
    check_maps(x, maps)
    return replace_in_order(
        score, make_baseline(x, baseline), x, rank_pixels(maps, seed), range(len(x)), steps=steps, batch_size=batch_size
    )


def replace_in_order(
    score: Score, first: Tensor, last: Tensor, ranks: Tensor, owners: Sequence[int], *, steps: int, batch_size: int
) -> Tensor:
    """Compute the scores on the way from one image to another, pixel by pixel in an order.

    Images without and with all pixels replaced are scored once per original image, however many orders it has.

    Args:
        score: see `Score`.
        first: images [N,C,H,W] before the first step.
        last: images [N,C,H,W] after the last step.
        ranks: ranks [M,H,W], see `rank_pixels`; M orders.
        owners: number of the image of each order.
        steps: number of steps S.
        batch_size: number of images in one forward pass.

    Returns:
        Scores [M,S+1] in float64 on the CPU.

    Raises:
        InputError: no step.
    """
    if steps < 1:
        raise InputError(f"steps={steps}; give at least 1.")
    owners, count = list(owners), len(owners)
    size = (first.shape[2], first.shape[3])
    counts = count_pixels(torch.linspace(0, 1, steps + 1, dtype=torch.float64), size)[1:-1]
    ranks, inside = ranks.to(first.device), len(counts)

    def make(start: int, stop: int) -> Tensor:
        orders = [job // inside for job in range(start, stop)]
        wanted = counts[[job % inside for job in range(start, stop)]].view(-1, 1, 1)
        images = [owners[order] for order in orders]
        replaced = take_images(ranks, orders) < send_to(wanted, first.device)
        return torch.where(replaced[:, None], take_images(last, images), take_images(first, images))

    between = score_in_batches(score, make, [o for o in owners for _ in range(inside)], batch_size)
    used = sorted(set(owners))
    places = [used.index(o) for o in owners]
    before, after = (_score_images(score, images, used, batch_size)[places] for images in (first, last))
    return torch.cat([before[:, None], between.view(count, inside), after[:, None]], 1)


def area_under_curve(scores: Tensor, fractions: Tensor | None = None) -> Tensor:
    r"""Compute the area under curves [..., S+1] by the trapezoid rule, [...].

    .. math:: A = \sum_k \tfrac12 (s_k + s_{k+1}) (f_{k+1} - f_k)

    Args:
        scores: values [..., S+1].
        fractions: places [S+1]; default: equally spaced from 0 to 1.

    >>> area_under_curve(torch.tensor([1.0, 0.5, 0.0])).item()
    0.5
    """
    if fractions is None:
        fractions = torch.linspace(0, 1, scores.shape[-1], dtype=torch.float64)
    return torch.trapezoid(scores, fractions.to(scores), dim=-1)


def _score_images(score: Score, images: Tensor, owners: list[int], batch_size: int) -> Tensor:
    """Return the scores of the images [N,C,H,W] with these numbers; those of the originals are known."""
    known = score.find_known(images) if isinstance(score, ClassScore) else None
    if known is not None:
        return known[owners]
    return score_in_batches(score, lambda start, stop: take_images(images, owners[start:stop]), owners, batch_size)
