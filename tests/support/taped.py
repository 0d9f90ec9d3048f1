"""A small model and a batch for the tests of the tape."""

from __future__ import annotations

import awkward
import torch


def small(device="cpu", kind=awkward.FeatureModule):
    return kind().to(device, torch.float64).eval()


def picture(n=2, device="cpu"):
    return torch.randn(n, 3, 12, 12).to(device, torch.float64)
