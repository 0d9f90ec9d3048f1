"""A network small enough to be trained from nothing in seconds: `--model import:benchmarks.small:body`."""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def body() -> nn.Sequential:
    """Puts out its last feature map, of stride 16, after maps of stride 2, 4 and 8; camplug puts the head on top."""
    widths = (3, 16, 32, 64, 128)
    model = nn.Sequential(
        *(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths))
    )
    model.pretrained_cfg = {"input_size": (3, 96, 96), "mean": (0.5,) * 3, "std": (0.25,) * 3}  # type: ignore[assignment]
    return model
