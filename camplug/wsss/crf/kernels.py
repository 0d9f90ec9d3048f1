"""Normalised lattices of the dense CRF's two kernels. Krähenbühl and Koltun, NIPS 2011, eq. 3."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from camplug.wsss.crf.lattice import Floats, Lattice

CACHED_PIXELS = 2**21  # in all cached Gaussian lattices: about ten VOC photographs, up to 100 bytes per pixel


@dataclass(frozen=True)
class Kernel:
    """Kernel with symmetric normalisation, N K N.

    Attributes:
        lattice: filter that applies the kernel.
        ones: response [P] to a plane of ones.
    """

    lattice: Lattice
    ones: Floats

    @classmethod
    def from_features(cls, features: Floats) -> Kernel:
        """Make the kernel exp(-|f_i - f_j|^2 / 2) over P pixels with features [P, d]."""
        lattice = Lattice(features).normalize()
        return cls(lattice, lattice.filter(np.ones((len(features), 1), np.float32))[:, 0])


def make_bilateral_kernel(photo: NDArray[np.uint8], sxy: float, srgb: float) -> Kernel:
    """Make the appearance kernel: positions [pixels] over sxy, colours [0..255] over srgb; photo [H, W, 3]."""
    height, width = photo.shape[:2]
    features = np.empty((5, height * width), np.float32)
    features[:2] = _make_positions(height, width, sxy)
    np.divide(photo.reshape(-1, 3).T, np.float32(srgb), out=features[2:])
    return Kernel.from_features(features.T)


def make_gaussian_kernel(height: int, width: int, sxy: float) -> Kernel:
    """Make the smoothness kernel: positions [pixels] over sxy. Cached by size, thread-safe."""
    key = (height, width, float(sxy))
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    # not locked: two threads may build the same kernel
    kernel = Kernel.from_features(_make_positions(height, width, sxy).T)
    with _lock:
        _cache[key] = kernel
        _cache.move_to_end(key)
        while sum(h * w for h, w, _ in _cache) > CACHED_PIXELS:
            _cache.popitem(last=False)
    return kernel


def clear_kernel_cache() -> None:
    """Clear the cache of Gaussian lattices."""
    with _lock:
        _cache.clear()


_cache: OrderedDict[tuple[int, int, float], Kernel] = OrderedDict()
_lock = Lock()


def _make_positions(height: int, width: int, sxy: float) -> Floats:
    """Return x and y of each pixel over sxy, [2, H * W]."""
    places = np.empty((2, height, width), np.float32)
    places[0] = np.arange(width, dtype=np.float32) / np.float32(sxy)
    places[1] = (np.arange(height, dtype=np.float32) / np.float32(sxy))[:, None]
    return places.reshape(2, -1)
