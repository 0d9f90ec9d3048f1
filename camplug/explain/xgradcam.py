"""XGrad-CAM (Fu et al., 2020, arXiv 2008.02312)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from camplug.explain.base import LayerExplainer
from camplug.explain.fold import fold
from camplug.explain.registry import register
from camplug.explain.tensor_ops import safe_divide, weighted_sum, widen


def xgrad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Compute XGrad-CAM of one layer (eq. 8).

    .. math:: L = \mathrm{relu}\Big(\sum_k \alpha_k A_k\Big), \quad
        \alpha_k = \sum_{ij} \frac{A_{kij}}{\sum_{ab} A_{kab}}\, g_{kij}

    A channel whose activations sum to 0 has weight 0.

    Args:
        activation: A, [N,K,h,w].
        gradient: g, [N,K,h,w].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    a, g = widen(activation), widen(gradient)
    alpha = safe_divide((a * g).sum((2, 3)), a.sum((2, 3)))
    return weighted_sum(a, alpha).clamp_min_(0)


@register("xgradcam")
class XGradCAM(LayerExplainer):
    """XGrad-CAM: gradients averaged with the normalised activations as weights; default: the last feature map."""

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return fold("xgradcam", xgrad_cam, activation, gradient)
