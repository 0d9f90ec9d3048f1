"""Colour palette of VOC."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def make_voc_palette() -> NDArray[np.uint8]:
    """Make VOC's 256 colours, uint8 [256,3].

    Bits 0, 1, 2 of the index become the highest bits of red, green, blue, bits 3, 4, 5 the next, and so on.

    >>> make_voc_palette()[[0, 1, 8, 15, 255]].tolist()  # background, aeroplane, cat, person, ignored
    [[0, 0, 0], [128, 0, 0], [64, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        palette[:, bit % 3] |= ((index >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return palette
