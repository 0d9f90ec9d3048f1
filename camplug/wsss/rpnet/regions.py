"""Confident regions of feature maps and their mean features (prototypes)."""

from __future__ import annotations

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.tensor_ops import widen
from camplug.plug import send_to

PEAK_EPS = 1e-5
AREA_EPS = 5e-4


def find_confident_regions(features: Tensor, threshold: float = 0.3) -> Tensor:
    r"""Find the positions where at least one channel is near its own maximum.

    .. math:: M(x) = \Big[ \max_d \frac{\mathrm{relu}(f_d(x))}{\max_{x'} \mathrm{relu}(f_d(x')) + 10^{-5}}
              \ge \alpha \Big]

    (Liu et al., RPNet, eq. 3, 4 and the threshold of eq. 6 as in the authors' code: the maximum of eq. 4 is over
    channels, and alpha = 0.3 is not the beta of the dropping.) Negative features are set to 0 first (eq. 3), so a
    channel without a positive value adds no position.

    Args:
        features: f, [N,D,h,w].
        threshold: alpha, between 0 and 1.

    Returns:
        bool [N,h,w], without a gradient; empty for an image without a positive feature.

    Raises:
        InputError: the features have another shape or dtype, or the threshold is out of range.

    >>> find_confident_regions(torch.tensor([[[[1.0, 4.0, 0.5]], [[-1.0, -1.0, -2.0]]]]))
    tensor([[[False,  True, False]]])
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold={threshold}; give a number above 0 and below 1.")
    positive = widen(check_features(features).detach()).clamp_min(0)
    shares = positive / (positive.amax((2, 3), keepdim=True) + PEAK_EPS)
    return (shares >= threshold).any(1)


def drop_positions(mask: Tensor, keep: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """Keep each position of a mask with probability `keep`, and at least one position of a nonempty mask.

    The Z of eq. 6. Where the draw would empty an image's mask, a random position is kept; the authors' code divides 0
    by 0 there.

    Args:
        mask: bool [N,h,w].
        keep: probability, above 0 and at most 1.
        generator: CPU generator; None is torch's default. One number is drawn for every position, in the mask or not.

    Returns:
        bool [N,h,w], a subset of `mask`.

    Raises:
        InputError: the mask has another shape or dtype, `keep` is out of range, or the generator is not on the CPU.

    >>> int(drop_positions(torch.ones(1, 2, 2, dtype=torch.bool), 1e-9).sum())
    1
    """
    if not 0 < keep <= 1:
        raise InputError(f"keep={keep}; give a probability above 0 and at most 1.")
    if generator is not None and generator.device.type != "cpu":
        raise InputError(f"the generator is on {generator.device}; give one of the CPU: torch.Generator().")
    draw = send_to(torch.rand(_check_mask(mask).shape, generator=generator), mask.device)
    lowest = draw.masked_fill(~mask, torch.inf).amin((1, 2), keepdim=True)
    return mask & ((draw < keep) | (draw == lowest))


def compute_prototypes(features: Tensor, mask: Tensor) -> Tensor:
    r"""Compute the mean feature vector of a region.

    .. math:: p = \frac{\sum_x f(x) M(x)}{\sum_x M(x) + 5 \cdot 10^{-4}}

    (eq. 5, with the authors' epsilon.) Only the features get a gradient.

    Args:
        features: f, [N,D,h,w].
        mask: M, bool [N,h,w].

    Returns:
        [N,D], at least float32, also in autocast; zeros for an empty mask.

    Raises:
        InputError: shapes or dtypes do not fit.

    >>> compute_prototypes(torch.tensor([[[[1.0, 3.0, 9.0]]]]), torch.tensor([[[True, True, False]]])).round(decimals=2)
    tensor([[2.]])
    """
    check_features(features)
    if _check_mask(mask).shape != features.shape[:1] + features.shape[2:]:
        raise InputError(
            f"features {list(features.shape)} and mask {list(mask.shape)} do not fit; give [N,D,h,w] and [N,h,w]."
        )
    with torch.autocast(features.device.type, enabled=False):
        flat = widen(features).flatten(2)
        weights = mask.flatten(1).to(flat)
        sums = torch.einsum("ndx,nx->nd", flat, weights)
        return sums / (weights.sum(1, keepdim=True) + AREA_EPS)


def check_features(features: Tensor) -> Tensor:
    """Check that features are nonempty floating-point maps [N,D,h,w] and return them.

    Raises:
        InputError: they are not.
    """
    if features.ndim != 4 or not features.is_floating_point() or not features.numel():
        raise InputError(
            f"features are {features.dtype} {list(features.shape)}; give floating-point maps [N,D,h,w], none of it 0."
        )
    return features


def _check_mask(mask: Tensor) -> Tensor:
    if mask.ndim != 3 or mask.dtype != torch.bool:
        raise InputError(f"mask is {mask.dtype} {list(mask.shape)}; give bool [N,h,w].")
    return mask
