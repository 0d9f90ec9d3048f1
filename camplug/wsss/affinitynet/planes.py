"""Planes of AffinityNet's random walk and their conversion to labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.affinity import SparseAffinity, propagate
from camplug.wsss.affinity.grid import count_cells, enlarge_planes
from camplug.wsss.affinitynet.labels import add_background_scores
from camplug.wsss.affinitynet.network import STRIDE


def make_walk_planes(maps: NDArray[np.floating], alpha: float = 16.0, stride: int = STRIDE) -> NDArray[np.floating]:
    """Make the input of the walk, background and maps on the grid: [K+1,h,w], h = ceil(H / stride).

    Values are averaged over cells of stride x stride pixels, at the border over the pixels inside the photograph (the
    published code pads with zeros).

    Args:
        maps: [K,H,W] in [0, 1] at the photograph's size; K may be 0.
        alpha: exponent of `add_background_scores`; 16 in the published code, 6 in SEAM.
        stride: side of a cell in pixels.

    Raises:
        InputError: the stride is below 1, or the maps are invalid for `add_background_scores`.

    >>> make_walk_planes(np.array([[[1.0, 0.0, 0.5]]]), alpha=1, stride=2)
    array([[[0.5, 0.5]],
    <BLANKLINE>
           [[0.5, 0.5]]])
    """
    if stride < 1:
        raise InputError(f"stride={stride}; give a whole number of pixels, at least 1.")
    planes = add_background_scores(maps, alpha)
    for axis in (1, 2):
        side = planes.shape[axis]
        starts = np.arange(0, side, stride)
        counts = np.minimum(stride, side - starts).astype(planes.dtype)
        planes = np.add.reduceat(planes, starts, axis) / (counts[:, None] if axis == 1 else counts)
    return planes


def label_planes(planes: NDArray[np.floating], size: tuple[int, int], stride: int = STRIDE) -> NDArray[np.uint8]:
    """Return the strongest plane at every pixel, uint8 [H,W], after bilinear enlargement to the photograph's size.

    Args:
        planes: [K+1,h,w], background first; among equal values the first wins.
        size: (H, W) of the photograph.
        stride: side of a cell in pixels.

    Raises:
        InputError: the grid does not fit the photograph.

    >>> label_planes(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), size=(1, 4), stride=2)
    array([[0, 0, 1, 1]], dtype=uint8)
    """
    height, width = size
    grid = count_cells(height, width, stride)
    if planes.ndim != 3 or planes.shape[1:] != grid:
        raise InputError(
            f"planes are {list(planes.shape)}; for {height}x{width} pixels at stride {stride} give "
            f"[K+1,{grid[0]},{grid[1]}]."
        )
    full = enlarge_planes(torch.from_numpy(np.ascontiguousarray(planes)), stride, size)
    labels: NDArray[np.uint8] = full.numpy().argmax(0).astype(np.uint8)
    return labels


def walk_to_labels(
    maps: NDArray[np.floating],
    affinity: SparseAffinity,
    *,
    alpha: float = 16.0,
    steps: int = 256,
    beta: float = 8.0,
    **options: Any,
) -> NDArray[np.uint8]:
    """Make the labels of a photograph by AffinityNet's random walk, uint8 [H,W]: 0 background, k + 1 for map k.

    Args:
        maps: [K,H,W] in [0, 1] at the photograph's size; K may be 0.
        affinity: affinities of the photograph from `AffinityNet.affinities`.
        alpha: exponent of the background; see `make_walk_planes`.
        steps: steps of the walk; 64 in SEAM.
        beta: power of the affinities.
        options: more options of `propagate`.

    Raises:
        InputError: the affinities have another size, or an option is out of range.
    """
    walked = propagate(make_walk_planes(maps, alpha), affinity, steps, beta, **options)
    return label_planes(walked, (maps.shape[1], maps.shape[2]))
