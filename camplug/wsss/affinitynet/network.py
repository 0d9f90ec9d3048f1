"""Head of AffinityNet on the feature maps of any backbone: features at stride 8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.wsss.affinity.grid import count_cells

STRIDE = 8
SHARES = (1, 2, 4)  # channels of the last three stages in sevenths of the width: 64, 128 and 256 of 448
GROUP = 8  # channels per group of the normalisation


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Return the size of an image's grid: an eighth of the sides, rounded up.

    >>> grid_size(375, 500)
    (47, 63)
    """
    return count_cells(height, width, STRIDE)


class FeatureHead(nn.Module):
    """Head for features from the last three stages.

    Each stage passes a 1x1 convolution to 64, 128 and 256 channels, finest first, group normalisation (as in the
    published VGG-16), resizing to the grid and an ELU; a 1x1 convolution over all of them and an ELU give the features.
    With fewer than three stages the finer ones are left out.

    Args:
        channels: channels of the stages, finest first; only the last three are used.
        width: channels of the features; 448 in the published code, a multiple of 56. The channels of the stages are
            proportional to it.

    Raises:
        InputError: the width is not possible.
    """

    def __init__(self, channels: Sequence[int], width: int = 448) -> None:
        super().__init__()
        unit = sum(SHARES) * GROUP
        if width < unit or width % unit:
            raise InputError(f"width={width}; give a multiple of {unit}.")
        used = channels[-len(SHARES) :]
        widths = [width // sum(SHARES) * share for share in SHARES[-len(used) :]]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, w, 1, bias=False), nn.GroupNorm(w // GROUP, w))
            for c, w in zip(used, widths, strict=True)
        )
        self.join = nn.Conv2d(sum(widths), width, 1, bias=False)
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.xavier_uniform_(self.join.weight, gain=4)  # as published, so that initial affinities are well below 1

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Compute features [N,width,h,w] on a grid of `size` (h, w) from the maps of all stages, finest first."""
        planes = [
            F.elu(_resize(stage(x), size)) for stage, x in zip(self.stages, features[-len(self.stages) :], strict=True)
        ]
        return F.elu(self.join(torch.cat(planes, 1)))


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)
