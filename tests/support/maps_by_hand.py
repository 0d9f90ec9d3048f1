"""Models in float64 with evidence of both signs, and reference maps of every image alone."""

from __future__ import annotations

import torch
from reference import reference_map
from torch import nn


def on(model, device):
    """The model in float64 on a device, with evidence of both signs."""
    torch.manual_seed(3)
    for p in model.parameters():
        nn.init.normal_(p, 0, 0.3)
    return model.double().eval().to(device)


def images(device, n=2, side=32, channels=3):
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1)).double().to(device)


def by_hand(method, model, layers, x, wanted, grid=lambda t: t):
    """The reference of every image alone."""
    return [
        reference_map(method, model, layers, x[i : i + 1], lambda y: y[:, wanted], grid=grid) for i in range(len(x))
    ]
