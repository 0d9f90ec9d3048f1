"""Affinities from feature differences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.affinity import make_half_disc, slice_ends


def feature_affinity(features: Tensor, radius: int) -> Tensor:
    r"""Compute the exponential of minus the mean absolute difference of features, for all pairs closer than `radius`.

    .. math:: a_{ij} = \exp\left(-\frac1C \sum_c |f_{ic} - f_{jc}|\right)

    (Ahn & Kwak, CVPR 2018; the mean over channels as in their code.) Differences are computed offset by offset and
    recomputed for the gradient: with 448 channels and a radius of 5, the differences of all pairs would be 34 times as
    large as the features. The gradient of equal features is 0.

    Args:
        features: [N,C,h,w].
        radius: bound of the distance of pairs, exclusive; see `make_half_disc`.

    Returns:
        [N,P,h,w] in (0, 1]: element [n, p, y, x] is the affinity of (y, x) and (y + dy, x + dx) for the p-th offset of
        `make_half_disc(radius)`; 0 where the destination is off the grid.

    Raises:
        InputError: the features are no batch of maps.

    >>> features = torch.tensor([0.0, 1.0, 3.0]).log1p().view(1, 1, 1, 3)
    >>> feature_affinity(features, 3)[0, :2]  # one and two steps to the right
    tensor([[[0.5000, 0.5000, 0.0000]],
    <BLANKLINE>
            [[0.2500, 0.0000, 0.0000]]])
    """
    if features.ndim != 4 or not features.shape[1] or not features.is_floating_point():
        raise InputError(f"features are floating-point maps [N,C,h,w]; got {features.dtype} {list(features.shape)}.")
    affinity: Tensor = _FeatureAffinity.apply(features, radius)
    return affinity


class _FeatureAffinity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, radius: int) -> Tensor:
        offsets = make_half_disc(radius)
        n, _, h, w = features.shape
        affinity = features.new_zeros((n, len(offsets), h, w))
        for p, offset in enumerate(offsets):
            one, other = slice_ends(features, *offset)
            slice_ends(affinity[:, p], *offset)[0].copy_((one - other).abs_().mean(1).neg_().exp_())
        ctx.radius = radius
        ctx.save_for_backward(features, affinity)
        return affinity

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        features, affinity = ctx.saved_tensors
        scaled = gradient * affinity / -features.shape[1]
        total = torch.zeros_like(features)
        for p, offset in enumerate(make_half_disc(ctx.radius)):
            (one, other), (source, destination) = slice_ends(features, *offset), slice_ends(total, *offset)
            received = slice_ends(scaled[:, p], *offset)[0].unsqueeze(1)
            change = (one - other).sign_().mul_(received)
            source.add_(change)
            destination.sub_(change)
        return total, None
