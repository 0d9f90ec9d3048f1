"""Shared tensor helpers."""

from __future__ import annotations

import torch
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
