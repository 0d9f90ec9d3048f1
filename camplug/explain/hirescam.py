"""HiResCAM (Draelos and Carin, 2020, arXiv 2011.08891)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from camplug.explain.base import LayerExplainer
from camplug.explain.fold import fold
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen


def hires_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Compute HiResCAM of one layer (eq. 5), its positive part.

    .. math:: L = \mathrm{relu}\Big(\sum_k g_k \odot A_k\Big)

    Args:
        activation: A, [N,K,h,w].
        gradient: g, [N,K,h,w].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    return (widen(gradient) * widen(activation)).sum(1).clamp_min_(0)


@register("hirescam")
class HiResCAM(LayerExplainer):
    """HiResCAM: activation times gradient at every position; default: the last feature map."""

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return fold("hirescam", hires_cam, activation, gradient)
