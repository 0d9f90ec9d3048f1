"""Planes of AffinityNet's random walk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.affinitynet.labels import ALPHA, add_background_scores
from camplug.wsss.affinitynet.network import STRIDE


def make_walk_planes(maps: NDArray[np.floating], alpha: float = ALPHA, stride: int = STRIDE) -> NDArray[np.floating]:
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
