"""Base class of random walks on IRN's grid with a constant background."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf

import numpy as np
import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.affinity import compute_chebyshev_terms
from camplug.wsss.affinity.grid import enlarge_planes
from camplug.wsss.irn.network import STRIDE, grid_size
from camplug.wsss.pseudo.refine import Floats, Photo, Threshold, check_maps
from camplug.wsss.store.seed_folder import shrink_maps


class GridWalk(ABC):
    """Base class of walks on the grid of stride 4 with a constant background.

    Maps are reduced to the grid, propagated by `spread`, enlarged, and divided by one maximum over all classes.

    Args:
        threshold: score of the background.
        beta: exponent of affinities.
        steps: number of steps, for grids of about 100 x 100 positions; proportional to the square of the side.
        power: exponent of the maps.
        tolerance: bound of the walk's error; see `propagate`.

    Raises:
        InputError: an option is out of its range.
    """

    def __init__(self, threshold: float, beta: float, steps: int, power: float, tolerance: float | None) -> None:
        self.with_background = Threshold(threshold)
        check_walk(beta, steps, tolerance)
        if not 0 < power < inf:
            raise InputError(f"power={power:g}; give a number above 0, 1 for the maps as they are.")
        self.beta, self.steps, self.power, self.tolerance = beta, steps, power, tolerance

    @abstractmethod
    def spread(self, photo: Photo, maps: Floats) -> Tensor:
        """Propagate maps [K,H,W] on the grid, [K,h,w]."""

    def maps(self, photo: Photo, maps: Floats) -> Floats:
        """Propagate maps [K,H,W]; the largest value becomes 1, unless all are 0.

        Args:
            photo: RGB photograph, uint8 [H,W,3].
            maps: maps [K,H,W] in [0, 1]; K may be 0.

        Raises:
            InputError: photograph and maps do not fit.
        """
        check_maps(photo, maps)
        if not len(maps):
            return np.zeros(maps.shape, np.float32)
        pixels = enlarge_to_photo(self.spread(photo, maps), STRIDE, (maps.shape[1], maps.shape[2]))
        greatest = pixels.amax()
        scaled: Floats = torch.where(greatest > 0, pixels / greatest, pixels).cpu().numpy()
        return scaled

    def __call__(self, photo: Photo, maps: Floats) -> Floats:
        """Compute scores [K+1,H,W]: the threshold, followed by the propagated maps."""
        return self.with_background(photo, self.maps(photo, maps))


def shrink_to_grid(maps: Floats, device: torch.device) -> Tensor:
    """Reduce maps [K,H,W] to IRN's grid."""
    full = torch.from_numpy(np.ascontiguousarray(maps, np.float32)).to(device)
    return shrink_maps(full, grid_size(maps.shape[1], maps.shape[2]))


def enlarge_to_photo(planes: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Enlarge planes [K,h,w] to the photograph's size; negative values (within the tolerance) become 0."""
    return enlarge_planes(planes, stride, size).float().clamp_(min=0)


def check_walk(beta: float, steps: int, tolerance: float | None) -> None:
    """Raise InputError for options out of range, before any image is processed."""
    if not 0 < beta < inf:
        raise InputError(f"beta={beta:g}; give a number above 0; IRN has 10, PSA 8.")
    compute_chebyshev_terms(steps, tolerance)
