"""Normalised lattices of the dense CRF's two kernels. Krähenbühl and Koltun, NIPS 2011, eq. 3."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from camplug.wsss.crf.lattice import Lattice

CACHED_PIXELS = 2**21  # in all cached Gaussian lattices: about ten VOC photographs, up to 100 bytes per pixel

Size = tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """Kernel with symmetric normalisation, N K N.

    Attributes:
        lattice: filter that applies the kernel.
        ones: response [P] to a plane of ones.
    """

    lattice: Lattice
    ones: Tensor

    @classmethod
    def from_features(cls, features: Tensor, images: Tensor | None = None) -> Kernel:
        """Make the kernel exp(-|f_i - f_j|^2 / 2) over P pixels with features [P, d]; 0 between images."""
        lattice = Lattice(features, images).normalize()
        return cls(lattice, lattice.sum_rows())


def make_bilateral_kernel(photos: Sequence[Tensor], sxy: float, srgb: float) -> Kernel:
    """Make the appearance kernel: positions [pixels] over sxy, colours [0..255] over srgb.

    Args:
        photos: photographs, uint8 [H, W, 3] on one device, of any sizes; their pixels follow one another.
        sxy: standard deviation of positions.
        srgb: standard deviation of colours.
    """
    planes = [
        torch.cat([_make_positions(one.shape[0], one.shape[1], sxy, one.device), one.reshape(-1, 3).T / srgb])
        for one in photos
    ]
    sizes = [(one.shape[0], one.shape[1]) for one in photos]
    return Kernel.from_features(torch.cat(planes, 1).T, _number_images(sizes, photos[0].device))


def make_gaussian_kernel(sizes: Sequence[Size], sxy: float, device: torch.device) -> Kernel:
    """Make the smoothness kernel of images: positions [pixels] over sxy. Cached by sizes and device, thread-safe."""
    key = (tuple(sizes), float(sxy), device)
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    # not locked: two threads may build the same kernel
    planes = torch.cat([_make_positions(height, width, sxy, device) for height, width in sizes], 1)
    kernel = Kernel.from_features(planes.T, _number_images(sizes, device))
    with _lock:
        _cache[key] = kernel
        _cache.move_to_end(key)
        while sum(h * w for sizes, *_ in _cache for h, w in sizes) > CACHED_PIXELS:
            _cache.popitem(last=False)
    return kernel


def clear_kernel_cache() -> None:
    """Clear the cache of Gaussian lattices."""
    with _lock:
        _cache.clear()


_cache: OrderedDict[tuple[tuple[Size, ...], float, torch.device], Kernel] = OrderedDict()
_lock = Lock()


def _make_positions(height: int, width: int, sxy: float, device: torch.device) -> Tensor:
    """Return x and y of each pixel over sxy, [2, H * W]."""
    x, y = torch.arange(width, device=device) / sxy, torch.arange(height, device=device) / sxy
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).flatten(1)


def _number_images(sizes: Sequence[Size], device: torch.device) -> Tensor | None:
    """Return the number of each pixel's image, [P]; None for one image."""
    if len(sizes) == 1:
        return None
    counts = torch.tensor([height * width for height, width in sizes])
    return torch.repeat_interleave(torch.arange(len(sizes)), counts).to(device)
