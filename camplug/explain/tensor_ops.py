"""Shared tensor helpers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def widen(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 or, if it is float64, unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Sum over channels with one weight per channel, [N,K,h,w] and [N,K] to [N,h,w], without storing the product."""
    flat = values.flatten(2)  # a view in both memory layouts
    return torch.bmm(weights[:, None], flat).view(len(values), *values.shape[2:])


def safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return numerator / denominator, with 0 where the denominator is 0."""
    zero = denominator == 0
    return torch.where(zero, torch.zeros_like(numerator), numerator / denominator.masked_fill(zero, 1))


def resize_images(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a batch [N,C,H,W] like PIL's bicubic filter, without rounding to eight bits."""
    if tuple(x.shape[2:]) == size:
        return x
    small = F.interpolate(widen(x), size, mode="bicubic", align_corners=False, antialias=True)
    return small.to(x.dtype)


def resize_aligned(value: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an input [N,...,H,W] like its images or, if it is not floating-point, by the nearest pixel."""
    flat = value.reshape(-1, 1, *value.shape[-2:])
    if value.is_floating_point():
        flat = resize_images(flat, size)
    else:  # float64 preserves integers
        flat = F.interpolate(flat.double(), size, mode="nearest-exact").to(value.dtype)
    return flat.reshape(*value.shape[:-2], *size)
