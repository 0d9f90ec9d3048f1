"""RefineCAM (Domeniconi et al., 2026, arXiv 2605.14641): product of the maps of several layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.base import LayerExplainer
from camplug.explain.fuse import Fusion, normalize_map, resize_maps
from camplug.explain.registry import get_method, register
from camplug.plug import Selector


def multiply_maps(maps: Sequence[Tensor]) -> Tensor:
    r"""Multiply layer maps, each scaled to [0, 1] and resized to the largest.

    .. math:: L = \prod_l \mathrm{up}\Big(\frac{L_l - \min L_l}{\max L_l - \min L_l}\Big)

    Args:
        maps: maps [N,h,w] of the layers.

    Returns:
        Map [N,h,w] of the largest size, between 0 and 1.

    >>> multiply_maps([torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[1.0, 2.0]]])])
    tensor([[[0., 1.]]])
    """
    dims = maps[0].ndim - 1
    size = max((tuple(m.shape[1:]) for m in maps), key=lambda s: torch.Size(s).numel())
    result = torch.ones_like(resize_maps(maps[0], size))
    for one in maps:
        result = result * resize_maps(normalize_map(one, "minmax", dims), size)
    return result


@register("refinecam")
class RefineCAM(LayerExplainer):
    """RefineCAM: product of the maps of all stages: sharp ones of early layers where late ones agree.

    Args:
        model: any module, which is never changed.
        layers: layers to read; default: the last layer of every resolution.
        base: method that computes the map of each layer, one that reads activations and gradients.
        options: further arguments of `LayerExplainer`.
    """

    default_layers: ClassVar[str] = "stages"

    def __init__(
        self, model: nn.Module, layers: Selector | None = None, *, base: str = "gradcam++", **options: Any
    ) -> None:
        super().__init__(model, layers, **options)
        method = get_method(base)
        if not issubclass(method, LayerExplainer) or not method.needs_gradient or method is type(self):
            raise InputError(
                f"base={base!r} computes no map of a layer from its activation and gradient; give for instance "
                '"gradcam", "gradcam++" or "layercam".'
            )
        self.base = method(model, self.layers)

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return self.base.layer_map(activation, gradient)

    @override
    def fuse(self, maps: list[tuple[Tensor, int]]) -> Fusion:
        fusion = Fusion(None)
        fusion.add(multiply_maps([one for one, _ in maps]), 1)
        return fusion
