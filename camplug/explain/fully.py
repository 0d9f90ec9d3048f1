"""Fully-CAM (Song et al., "Rethinking CAM in Weakly-Supervised Semantic Segmentation", IEEE Access 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.explain.base import LayerExplainer
from camplug.explain.fold import fold
from camplug.explain.fuse import LayerWeighting, Normalize
from camplug.explain.registry import register
from camplug.explain.tensor_ops import weighted_sum, widen
from camplug.plug import Evidence, Selector


def fully_cam_layer(activation: Tensor, gradient: Tensor, channel_norm: bool = True) -> Tensor:
    r"""Compute Fully-CAM's map of one layer before the fusion (eq. 8 and 9).

    .. math:: m_k = \mathrm{relu}(A_k) \odot \mathrm{relu}(g_k), \quad
        L = \sum_k \frac{m_k}{\max_{ij} m_{kij}}

    A channel with max(m_k) = 0 contributes 0; every other channel has the maximum 1. Channels below the smallest normal
    number of their dtype count as 0.

    Args:
        activation: A, [N,K,h,w].
        gradient: g, [N,K,h,w].
        channel_norm: divide by the maximum; False computes L = sum of m_k.

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    # relu(A) * relu(g) in one buffer
    m = widen(gradient).clamp_min(0).mul_(activation).clamp_min_(0)
    if not channel_norm:
        return m.sum(1)
    peak = m.amax((2, 3))
    return weighted_sum(m, peak.reciprocal().masked_fill_(peak < torch.finfo(m.dtype).tiny, 0))


@register("fully")
class FullyCAM(LayerExplainer):
    """Fully-CAM: positive evidence of every convolution layer, each channel scaled to 1, summed over all layers.

    .. math:: \\mathrm{CAM} = \\mathrm{normalize}\\Big(\\sum_n \\mathrm{up}(L_n)\\Big) \\quad \\text{(eq. 10, 11)}

    Convolutions are read before normalisation and activation (pre-BN), like the layers in the paper's Table 2;
    `layers=` selects others. As in the paper, layers are added without weights, so more active channels count more.

    Args:
        model: any module; it is never changed.
        layers: layer selection; default: "convs", every `nn.Conv2d` whose output has more than one position (in a
            transformer, every block's tokens).
        channel_norm: divide each channel by its maximum (eq. 9); False sums the plain products.
        layer_weighting: None (the paper), "max" (each layer's map divided by its maximum) or "mean" (by its channels).
        normalize: "max" (eq. 11), "minmax" or None.
        evidence: "positive" or "negative".
        reshape: function from a layer's output to [N,C,h,w]; default: `camplug.plug.to_grid`.
        call: index of the call of a layer that runs several times, from 0; default: the maps of all calls are added.
        class_names: class names by index.
        preprocess: preprocessing for `explain`.
    """

    default_layers: ClassVar[str] = "convs"
    default_layer_weighting: ClassVar[LayerWeighting] = None

    def __init__(
        self,
        model: nn.Module,
        layers: Selector | None = None,
        *,
        channel_norm: bool = True,
        layer_weighting: LayerWeighting = None,
        normalize: Normalize = "max",
        evidence: Evidence = "positive",
        reshape: Callable[[Tensor], Tensor] | None = None,
        call: int | None = None,
        class_names: Sequence[str] | None = None,
        preprocess: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(
            model,
            layers,
            layer_weighting=layer_weighting,
            normalize=normalize,
            evidence=evidence,
            reshape=reshape,
            call=call,
            class_names=class_names,
            preprocess=preprocess,
        )
        self.channel_norm = channel_norm

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        if self.channel_norm:
            return fold("fully", fully_cam_layer, activation, gradient)
        return fold("positive", partial(fully_cam_layer, channel_norm=False), activation, gradient)
