"""Heads of IRN on the feature maps of any backbone: boundaries and displacements at stride 4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.wsss.affinity.grid import count_cells

STRIDE = 4


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Return the size of an image's grid: a quarter of the sides, rounded up.

    >>> grid_size(375, 500)
    (94, 125)
    """
    return count_cells(height, width, STRIDE)


def _resize(x: Tensor, stride: float, wanted: float) -> Tensor:
    """Resize a map from one stride to another."""
    if stride == wanted:
        return x
    h, w = (round(side * stride / wanted) for side in x.shape[-2:])
    return F.interpolate(x, (h, w), mode="bilinear", align_corners=False)


def _make_reduction(channels: int, width: int, groups: int) -> nn.Sequential:
    """Make a 1x1 convolution with group normalisation; the ReLU follows after resizing."""
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(groups, width))


class BoundaryHead(nn.Module):
    """Head for boundary logits from all stages.

    Each stage passes a 1x1 convolution to 32 channels, group normalisation, resizing to stride 4 and a ReLU; a 1x1
    convolution over all of them gives one logit.

    Args:
        channels: channels of the stages.
        strides: strides of the stages.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[float]) -> None:
        super().__init__()
        self.strides = list(strides)
        self.stages = nn.ModuleList(_make_reduction(c, 32, 4) for c in channels)
        self.out = nn.Conv2d(32 * len(channels), 1, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Compute logits [N,h,w] at stride 4."""
        planes = [
            _resize(stage(x), stride, STRIDE).relu()
            for stage, x, stride in zip(self.stages, features, self.strides, strict=True)
        ]
        logits: Tensor = self.out(torch.cat(planes, 1))
        return logits[:, 0]


class DisplacementHead(nn.Module):
    """Head for displacements (rows, columns), in grid positions, to the centre of each position's object.

    Stages of stride above 4 are joined at stride 8, all others at stride 4. In evaluation mode the mean displacement
    over the training images is subtracted, since the losses do not determine it (IRN's "MeanShift").

    Args:
        channels: channels of the stages.
        strides: strides of the stages.
        width: channels of the joined maps; 256 in the paper, a multiple of 16.
    """

    mean: Tensor

    def __init__(self, channels: Sequence[int], strides: Sequence[float], width: int = 256) -> None:
        super().__init__()
        if width < 16 or width % 16:
            raise InputError(f"width={width}; give a multiple of 16.")
        self.strides = list(strides)
        self.widths = [
            width if stride > STRIDE else (width // 4 if i == 0 else width // 2) for i, stride in enumerate(strides)
        ]
        groups = [max(1, w // 16) if s > STRIDE else max(1, w // 8) for w, s in zip(self.widths, strides, strict=True)]
        self.stages = nn.ModuleList(_make_reduction(*cwg) for cwg in zip(channels, self.widths, groups, strict=True))
        coarse = sum(w for w, s in zip(self.widths, strides, strict=True) if s > STRIDE)
        fine = sum(self.widths) - coarse
        self.join_coarse = _make_reduction(coarse, width, 16) if coarse else None
        self.join = _make_reduction(fine + (width if coarse else 0), width, 16)
        self.out = nn.Conv2d(width, 2, 1, bias=False)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Compute displacements [N,2,h,w] at stride 4."""
        fine, coarse = [], []
        for stage, x, stride in zip(self.stages, features, self.strides, strict=True):
            if stride > STRIDE:
                coarse.append(_resize(stage(x), stride, 2 * STRIDE).relu())
            else:
                fine.append(_resize(stage(x), stride, STRIDE).relu())
        if self.join_coarse is not None:
            fine.append(_resize(self.join_coarse(torch.cat(coarse, 1)), 2 * STRIDE, STRIDE).relu())
        displacement: Tensor = self.out(self.join(torch.cat(fine, 1)).relu())
        return displacement if self.training else displacement - self.mean.view(1, 2, 1, 1)
