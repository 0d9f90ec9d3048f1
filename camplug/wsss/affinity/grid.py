"""Grids of cells over an image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def count_cells(height: int, width: int, stride: int) -> tuple[int, int]:
    """Return the numbers of rows and columns of cells of stride x stride pixels that cover an image.

    >>> count_cells(375, 500, 4)
    (94, 125)
    """
    return -(-height // stride), -(-width // stride)


def enlarge_planes(planes: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Enlarge planes [K,h,w] of a grid `stride` times, bilinearly, and crop them to the image's size [K,H,W]."""
    full = F.interpolate(planes[None], scale_factor=stride, mode="bilinear", align_corners=False)[0]
    return full[:, : size[0], : size[1]]
