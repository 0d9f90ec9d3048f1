"""Grad-CAM (Selvaraju et al., 2017, arXiv 1610.02391)."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from camplug.explain.base import LayerExplainer
from camplug.explain.fold import fold
from camplug.explain.registry import register
from camplug.explain.tensor_ops import weighted_sum, widen


def grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Compute Grad-CAM of one layer (eq. 1 and 2).

    .. math:: L = \mathrm{relu}\Big(\sum_k \alpha_k A_k\Big), \quad \alpha_k = \frac{1}{hw}\sum_{ij} g_{kij}

    Args:
        activation: A, [N,K,h,w].
        gradient: g, the gradient of the score with respect to A, [N,K,h,w].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    alpha = gradient.mean((2, 3), dtype=torch.promote_types(gradient.dtype, torch.float32))  # without a wide copy
    return weighted_sum(widen(activation), alpha).clamp_min_(0)


@register("gradcam")
class GradCAM(LayerExplainer):
    """Grad-CAM: channels weighted by their mean gradient; default: the last feature map."""

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return fold("gradcam", grad_cam, activation, gradient)
