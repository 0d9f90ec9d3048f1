"""Small network with random weights, for synthetic data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

STAGES = ((3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1))  # channels in and out, stride


class SmallNetwork(nn.Module):
    """Network of four convolutions and stride 8 that returns its last map; its initial weights are always the same.

    Args:
        seed: seed of the weights.

    >>> SmallNetwork()(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 64, 8, 12])
    """

    pretrained_cfg: dict[str, Any] = {  # noqa: RUF012
        "input_size": (3, 96, 96),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "interpolation": "bicubic",
    }

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stages = nn.Sequential(
                *(nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b, s in STAGES)
            )

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps [N,64,H/8,W/8] of images [N,3,H,W]."""
        maps: Tensor = self.stages(x)
        return maps
