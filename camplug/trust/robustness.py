"""Max-sensitivity and infidelity (Yeh et al., NeurIPS 2019, https://arxiv.org/abs/1901.09392)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.tensor_ops import safe_divide
from camplug.trust.perturb import Baseline, check_maps, make_baseline
from camplug.trust.score import BATCH_SIZE, ClassScore, Score, score_in_batches, take_images

Explain: TypeAlias = Callable[[Tensor, Sequence[int]], Tensor]
"""Function from images [M,C,H,W] and the number of the original image of each to the maps [M,H,W]."""


def max_sensitivity(
    explain: Explain,
    x: Tensor,
    maps: Tensor,
    *,
    radius: float = 0.02,
    samples: int = 10,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Tensor:
    r"""Compute the largest relative change of each map under noise in the image, [N]; lower is better.

    .. math:: \mathrm{SENS} = \max_{\|\delta\|_\infty \le r} \frac{\|m(x + \delta) - m(x)\|}{\|m(x)\|}

    with the maximum over `samples` draws of uniform noise. nan for an empty map.

    Args:
        explain: see `Explain`.
        x: images [N,C,H,W].
        maps: maps [N,H,W] of the images.
        radius: largest absolute value r of the noise, in the numbers that the model reads.
        samples: number of draws.
        batch_size: number of images that are explained together.
        seed: seed of the noise.

    Raises:
        InputError: the maps do not fit the images, or no sample.
    """
    _check(x, maps, samples)
    owners = [i for i in range(len(x)) for _ in range(samples)]
    generator = torch.Generator().manual_seed(seed)
    found = []
    for start in range(0, len(owners), batch_size):
        own = owners[start : start + batch_size]
        noise = torch.rand((len(own), *x.shape[1:]), generator=generator, dtype=torch.float32) * 2 - 1
        changed = explain(take_images(x, own) + radius * noise.to(x), own)
        found.append((changed - take_images(maps, own).to(changed)).flatten(1).norm(dim=1).cpu().double())
    largest = torch.cat(found).view(len(x), samples).amax(1)
    size = maps.flatten(1).norm(dim=1).cpu().double()
    return torch.where(size > 0, largest / size, torch.nan)


def infidelity(
    score: Score,
    x: Tensor,
    maps: Tensor,
    *,
    baseline: Baseline = "zero",
    samples: int = 32,
    scaled: bool = True,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Tensor:
    r"""Compute how badly each map predicts the change of the score when a square is removed, [N]; lower is better.

    .. math:: \mathrm{INFD} = \frac1K \sum_k \Bigl(\beta \sum_{i \in Q_k} m_i - (s(x) - s(x_{Q_k})) \Bigr)^2

    with K squares Q, whose pixels take the baseline's values. Sides are drawn from an eighth to a half of the shorter
    side, places uniformly inside the image. A class activation map gives the share of a pixel in the score, not the
    score's derivative; the perturbation in the sense of Yeh et al. is therefore the indicator of the square.

    Args:
        score: see `Score`.
        x: images [N,C,H,W].
        maps: maps [N,H,W].
        baseline: see `make_baseline`.
        samples: number K of squares, the same in all images.
        scaled: multiply each map by the factor that fits best, since its scale is arbitrary; else by 1.
        batch_size: number of images in one forward pass.
        seed: seed of the squares.

    Raises:
        InputError: the maps do not fit the images, or no sample.
    """
    _check(x, maps, samples)
    squares = draw_squares(samples, (x.shape[2], x.shape[3]), seed).to(x.device)
    base = make_baseline(x, baseline)

    def make(start: int, stop: int) -> Tensor:
        images = [job // samples for job in range(start, stop)]
        chosen = take_images(squares, [job % samples for job in range(start, stop)])
        return torch.where(chosen[:, None], take_images(base, images), take_images(x, images))

    owners = [i for i in range(len(x)) for _ in range(samples)]
    after = score_in_batches(score, make, owners, batch_size).view(len(x), samples)
    before = score.find_known(x) if isinstance(score, ClassScore) else None
    if before is None:
        before = score_in_batches(score, lambda a, b: x[a:b], range(len(x)), batch_size)
    predicted = torch.einsum("nhw,khw->nk", maps.cpu().double(), squares.cpu().double())
    return mean_squared_misfit(predicted, before[:, None] - after, scaled=scaled)


def mean_squared_misfit(predicted: Tensor, measured: Tensor, *, scaled: bool = True) -> Tensor:
    r"""Compute the mean squared difference of predicted and measured changes [N,K], [N].

    .. math:: \frac1K \sum_k (\beta p_k - q_k)^2, \quad \beta = \frac{\sum_k p_k q_k}{\sum_k p_k^2}

    Args:
        predicted: changes p that the maps predict.
        measured: changes q of the score.
        scaled: use the best factor for each image; else the factor is 1.

    >>> mean_squared_misfit(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 5.0]]))
    tensor([0.1000])
    """
    if scaled:
        factor = safe_divide((predicted * measured).sum(1, keepdim=True), (predicted**2).sum(1, keepdim=True))
        predicted = factor * predicted
    return ((predicted - measured) ** 2).mean(1)


def draw_squares(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Draw squares inside an image at random, bool [count,H,W]; see `infidelity`."""
    generator = torch.Generator().manual_seed(seed)
    h, w = size
    short = min(h, w)
    squares = torch.zeros((count, h, w), dtype=torch.bool)
    for square in squares:
        side = int(torch.randint(max(1, short // 8), max(1, short // 2) + 1, (), generator=generator))
        top, left = (int(torch.randint(0, n - side + 1, (), generator=generator)) for n in (h, w))
        square[top : top + side, left : left + side] = True
    return squares


def _check(x: Tensor, maps: Tensor, samples: int) -> None:
    """Raise InputError unless the maps fit the images and there is a sample."""
    check_maps(x, maps)
    if samples < 1:
        raise InputError(f"samples={samples}; give at least 1.")
