"""Fusing Localization Module of Fully-CAM: fusion of layer maps (eq. 10 and 11)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.plug import Size

Normalize: TypeAlias = Literal["max", "minmax"] | None
LayerWeighting: TypeAlias = Literal["max", "mean"] | None
Scaling: TypeAlias = Literal["own", "relative", "raw"]
SCALINGS: tuple[Scaling, ...] = ("own", "relative", "raw")


def normalize_map(maps: Tensor, how: Normalize = "max", dims: int = 2) -> Tensor:
    """Scale each map [..., h, w]: "max" divides by its maximum, "minmax" maps to [0, 1], None keeps it.

    A map without evidence (maximum 0, or constant for "minmax") becomes 0. Without an epsilon, the result does not
    depend on the scale of the gradients. Fully-CAM eq. 11. The last `dims` dimensions are those of a map.

    >>> normalize_map(torch.tensor([[1.0, 2.0], [3.0, 5.0]]), "minmax")
    tensor([[0.0000, 0.2500],
            [0.5000, 1.0000]])
    """
    if how is None or maps.numel() == 0:
        return maps
    spatial = tuple(range(-dims, 0))
    if how == "minmax":
        maps = maps - maps.amin(spatial, keepdim=True)
    peak = maps.amax(spatial, keepdim=True)
    return torch.where(peak > 0, maps / peak.clamp_min(torch.finfo(maps.dtype).tiny), torch.zeros_like(maps))


def scale_relative(maps: Tensor, peaks: Tensor) -> Tensor:
    r"""Divide maps of parts of an image by the larger of their own maximum and that of the whole image's map.

    .. math:: m' = \frac{m}{\max(\max m,\; p)}

    So a part without the object stays faint beside the whole image, and no part exceeds 1.

    Args:
        maps: m, [K,h,w].
        peaks: p, [K], the maxima of the whole image's maps.

    Returns:
        [K,h,w]; 0 where both maxima are 0.

    >>> scale_relative(torch.tensor([[[1.0, 2.0]], [[3.0, 8.0]]]), torch.tensor([4.0, 4.0])).flatten().tolist()
    [0.25, 0.5, 0.375, 1.0]
    """
    if len(maps) == 0:
        return maps
    peak = torch.maximum(maps.amax((1, 2)), peaks)[:, None, None]
    return torch.where(peak > 0, maps / peak.clamp_min(torch.finfo(maps.dtype).tiny), torch.zeros_like(maps))


class Fusion:
    """Sum of layer maps of any size, with one resize per distinct size.

    Bilinear interpolation is linear, so maps of one size are added before they are resized: equal to resizing every
    layer's map (eq. 10), at a fraction of the cost.

    Args:
        layer_weighting: None (plain sum, as in the paper), "max" (each map divided by its maximum) or "mean" (by its
            number of channels).
    """

    def __init__(self, layer_weighting: LayerWeighting = None) -> None:
        self.layer_weighting = layer_weighting
        self.sums: dict[Size, Tensor] = {}

    def add(self, layer_map: Tensor, channels: int) -> None:
        """Add one layer's map [N,h,w], computed from this many channels ([N,l] of signals, [N,d,h,w] of volumes)."""
        if self.layer_weighting == "max":
            layer_map = normalize_map(layer_map, "max", layer_map.ndim - 1)
        elif self.layer_weighting == "mean":
            layer_map = layer_map / channels
        size = tuple(layer_map.shape[1:])
        if size in self.sums:
            self.sums[size] += layer_map
        else:
            self.sums[size] = layer_map

    def result(self, size: Size) -> Tensor:
        """Return the sum of all layer maps at `size`, [N,h,w], not normalised."""
        return resize_and_sum(list(self.sums.values()), size)


_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize_maps(maps: Tensor, size: Size) -> Tensor:
    """Resize maps [K,h,w] (also [K,l], [K,d,h,w]) linearly (`align_corners=False`) to `size`; K may be 0."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    if len(maps) == 0:
        return maps.new_zeros((0, *size))
    return F.interpolate(maps[:, None], size, mode=_LINEAR[len(size)], align_corners=False)[:, 0]


def resize_and_sum(maps: list[Tensor], size: Size) -> Tensor:
    """Resize maps [N,h,w] linearly (`align_corners=False`) to `size` and add them."""
    total = None
    for one in maps:
        wide = resize_maps(one, size)
        total = wide if total is None else total + wide
    if total is None:
        raise ValueError("no maps to add")
    return total
