"""LayerCAM (Jiang et al., 2021, IEEE TIP)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from camplug.explain.base import LayerExplainer
from camplug.explain.fold import fold
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen


def layer_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Compute LayerCAM of one layer (eq. 5 to 7).

    .. math:: L = \mathrm{relu}\Big(\sum_k \mathrm{relu}(g_k) \odot A_k\Big)

    Args:
        activation: A, [N,K,h,w].
        gradient: g, [N,K,h,w].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    return widen(gradient).clamp_min(0).mul_(widen(activation)).sum(1).clamp_min_(0)


@register("layercam")
class LayerCAM(LayerExplainer):
    """LayerCAM: positions weighted by their positive gradient; default: the last feature map."""

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return fold("layercam", layer_cam, activation, gradient)
