"""Grids of cells over an image: how many there are, and their planes at the image's size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def count_cells(height: int, width: int, stride: int) -> tuple[int, int]:
    """Rows and columns of cells of stride x stride pixels that cover an image, the last ones partly.

    >>> count_cells(375, 500, 4)
    (94, 125)
    """
    return -(-height // stride), -(-width // stride)


def enlarge_planes(planes: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Planes [K,h,w] of a grid at the image's size [K,H,W]: `stride` times as large, bilinearly, then cut."""
    full = F.interpolate(planes[None], scale_factor=stride, mode="bilinear", align_corners=False)[0]
    return full[:, : size[0], : size[1]]
