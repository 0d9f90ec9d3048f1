"""Grad-CAM++ (Chattopadhyay et al., 2018, arXiv 1710.11063)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from camplug.explain.base import LayerExplainer
from camplug.explain.registry import register
from camplug.explain.tensor_ops import safe_divide, weighted_sum, widen


def grad_cam_pp(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Compute Grad-CAM++ of one layer (eq. 6 and 19, with Y = exp(S) as in the paper).

    .. math::
        \alpha_{kij} = \frac{g_{kij}^2}{2 g_{kij}^2 + g_{kij}^3 \sum_{ab} A_{kab}}, \quad
        w_k = \sum_{ij} \alpha_{kij}\,\mathrm{relu}(g_{kij}), \quad
        L = \mathrm{relu}\Big(\sum_k w_k A_k\Big)

    With Y = exp(S), the derivatives of every order share the factor exp(S); it cancels in alpha and only scales the
    map, so it is omitted. Where g = 0, alpha is 0.

    Args:
        activation: A, [N,K,h,w].
        gradient: g = dS/dA of the score S (a logit), [N,K,h,w].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    a, g = widen(activation), widen(gradient)
    # g^2 cancels: alpha = 1 / (2 + g * sum A), which does not underflow
    alpha = safe_divide(g.new_ones(()).expand_as(g), 2 + g * a.sum((2, 3), keepdim=True))
    weights = (alpha * g.clamp_min(0)).sum((2, 3))
    return weighted_sum(a, weights).clamp_min_(0)


@register("gradcam++")
class GradCAMPlusPlus(LayerExplainer):
    """Grad-CAM++: positive gradients weighted by the paper's alpha; default: the last feature map."""

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return grad_cam_pp(activation, gradient)
