"""Eigen-CAM (Muhammad and Yeasin, 2020, arXiv 2008.00299)."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from camplug.explain.activation import ActivationExplainer
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen


def eigen_cam(activation: Tensor) -> Tensor:
    r"""Compute Eigen-CAM of one layer: the positive part of the features' projection on their first singular vector.

    .. math:: O = U \Sigma V^T, \quad L = \mathrm{relu}(O v_1), \quad O \in \mathbb{R}^{hw \times K}

    The features are not centred (as in the paper). The sign of the vector is chosen so that the projections have a
    positive sum. The vector is computed from the smaller Gram matrix in float64.

    Args:
        activation: A, [N,K,h,w].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    n, _, h, w = activation.shape
    o = activation.flatten(2).transpose(1, 2).double()  # [N,hw,K]
    if o.shape[1] <= o.shape[2]:
        values, vectors = torch.linalg.eigh(o @ o.transpose(1, 2))
        projection = vectors[..., -1] * values[:, -1:].clamp_min(0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(o.transpose(1, 2) @ o)
        projection = (o @ vectors[..., -1:])[..., 0]
    projection = projection * torch.where(projection.sum(1, keepdim=True) < 0, -1.0, 1.0)
    result: Tensor = projection.clamp_min(0).view(n, h, w)
    return result.to(widen(activation[:0]).dtype)


@register("eigencam")
class EigenCAM(ActivationExplainer):
    """Eigen-CAM: first principal direction of the last feature map; independent of the class, without gradients."""

    @override
    def activation_map(self, activation: Tensor) -> Tensor:
        return eigen_cam(activation)
