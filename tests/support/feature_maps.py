"""A small network, images, and the last feature map with its gradient by plain autograd, for slow references."""

from __future__ import annotations

import awkward
import torch
import torch.nn.functional as F

CLASSES = [[0, 2], [1]]


def make(device="cpu"):
    """A network in float64 and two images [2,3,12,16]."""
    torch.manual_seed(2)
    model = awkward.FeatureModule().double().eval()
    return model.to(device), torch.randn(2, 3, 12, 16).double().to(device)


def read(model, image, score):
    """(activation [K,h,w], gradient [K,h,w]) of the last feature map of one image [1,3,H,W]."""
    a = model.features(image).detach().requires_grad_()
    (g,) = torch.autograd.grad(score(model.head(a.mean((2, 3)))), a)
    return a.detach()[0], g[0]


def finish(m, size=(12, 16)):
    """The normalised map at `size`."""
    m = F.interpolate(m[None, None], size, mode="bilinear")[0, 0].clamp_min(0)
    return m / m.max() if m.max() > 0 else m
