"""A small classifier whose evidence is known: the amounts of red, green and blue in an image."""

from __future__ import annotations

import torch
from torch import nn

RED, GREEN = 0, 1
BOX = (4, 6, 10, 14)
"""Top, left, bottom and right of the red square of `draw`."""


class Colours(nn.Sequential):
    """Scores 60 times the mean of each colour (green and blue 1 more), which its first layer maps."""

    class_names = ("red", "green", "blue")
    pretrained_cfg = {"input_size": (3, 24, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # noqa: RUF012

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)
        )
        with torch.no_grad():
            self[0].weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 3, 3) / 9)
            self[0].bias.zero_()
            self[4].weight.copy_(60 * torch.eye(3))
            self[4].bias.copy_(torch.tensor([0.0, 1.0, 1.0]))


def draw(*, noise=0.02):
    """An image [1,3,24,32] with a red square and a smaller green one, on black with noise."""
    image = torch.full((1, 3, 24, 32), -0.5) + noise * torch.randn(1, 3, 24, 32, generator=torch.manual_seed(3))
    top, left, bottom, right = BOX
    image[:, 0, top:bottom, left:right] = 1
    image[:, 1, 16:20, 22:26] = 0.5
    return image


def colours(device="cpu", dtype=torch.float32):
    """The classifier, ready for use."""
    return Colours().eval().to(device, dtype)
