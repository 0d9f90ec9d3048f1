"""Maps after a random walk over learned affinities: IRN's, which boundaries stop, and PSA's."""

from __future__ import annotations

from math import inf
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.affinity import SparseAffinity, compute_chebyshev_terms, make_half_disc, propagate
from camplug.wsss.affinity.grid import enlarge_planes
from camplug.wsss.affinity.walk import TOLERANCE
from camplug.wsss.irn.instances import Instance, find_instances
from camplug.wsss.irn.network import STRIDE, grid_size
from camplug.wsss.irn.paths import path_affinity
from camplug.wsss.pseudo.refine import Floats, Photo, Threshold, check_maps
from camplug.wsss.pseudo.walk_settings import AffinityNetWalkSettings, IRNWalkSettings
from camplug.wsss.store.seed_folder import shrink_maps


class MapWalk(Protocol):
    """What spreads the maps of a photograph: `IRNWalk` or `AffinityNetWalk`."""

    def maps(self, photo: Photo, maps: Floats, /) -> Floats:
        """The walked maps [K,H,W] in [0, 1]."""


class Boundaries(Protocol):
    """What tells boundaries, and maybe displacements: an `IRN`, or anything else that looks at photographs."""

    def boundaries(self, photo: Photo, /) -> Tensor:
        """Boundaries [h,w] in [0, 1] on the grid of stride 4."""

    def displacements(self, photo: Photo, /) -> Tensor | None:
        """Displacements [2,h,w] on the grid of stride 4, in its positions, if they are known."""


class Affinities(Protocol):
    """What tells affinities: an `AffinityNet`, or anything else that looks at photographs."""

    def affinities(self, photo: Photo, /) -> SparseAffinity:
        """The affinities on the grid of stride 8."""


class IRNWalk:
    """Scores by IRN's random walk: maps spread until they meet a boundary (Ahn, Cho & Kwak, CVPR 2019).

    The maps are shrunk to the grid of stride 4, raised to `power` and cleared from boundaries,
    x = M^power (1 - clear B); they walk over the affinities of `camplug.wsss.irn.paths`, are enlarged, and divided by
    one maximum over all classes.

    Args:
        irn: tells the boundaries B.
        threshold: the background's score. 0.25 in the paper, for its own seeds; ReCAM .28, RIB .27, FPR .20.
        beta: the power of affinities.
        steps: of the walk; for grids like IRN's of about 100 positions a side, others by the square of theirs.
        power: of the maps; AdvCAM, FPR and RIB have 1.5.
        clear: how much boundaries are cleared of the maps, 0 to 1; all in IRN, where boundaries are thin.
        tolerance: of the walk; see `propagate`.
        radius: pairs closer than this many grid positions have an affinity.

    Raises:
        InputError: an option out of its range.
    """

    def __init__(
        self,
        irn: Boundaries,
        threshold: float = 0.25,
        *,
        beta: float = IRNWalkSettings.beta,
        steps: int = IRNWalkSettings.steps,
        power: float = IRNWalkSettings.power,
        clear: float = IRNWalkSettings.clear,
        tolerance: float | None = TOLERANCE,
        radius: int = 5,
    ) -> None:
        self.with_background = Threshold(threshold)
        _check_walk(beta, steps, tolerance)
        if not 0 < power < inf:
            raise InputError(f"power={power:g}; give a number above 0, 1 for the maps as they are.")
        if not 0 <= clear <= 1:
            raise InputError(f"clear={clear:g}; give a number from 0 to 1.")
        self.irn, self.beta, self.steps, self.tolerance = irn, beta, steps, tolerance
        self.power, self.clear = power, clear
        self.offsets, self.radius = make_half_disc(radius), radius

    def maps(self, photo: Photo, maps: Floats) -> Floats:
        """The walked maps [K,H,W], their greatest value 1 (or all 0).

        Args:
            photo: RGB uint8 [H,W,3].
            maps: [K,H,W] in [0, 1]; K may be 0.

        Raises:
            InputError: photograph and maps do not fit together.
        """
        check_maps(photo, maps)
        if not len(maps):
            return np.zeros(maps.shape, np.float32)
        size = (maps.shape[1], maps.shape[2])
        boundary = self.irn.boundaries(photo)
        walked = self._spread(boundary, _shrink_to_grid(maps, boundary.device))
        pixels = _enlarge_to_photo(walked, STRIDE, size)
        greatest = pixels.amax()
        scaled: Floats = torch.where(greatest > 0, pixels / greatest, pixels).cpu().numpy()
        return scaled

    def __call__(self, photo: Photo, maps: Floats) -> Floats:
        """Scores [K+1,H,W]: the walked maps behind a plane of the threshold."""
        return self.with_background(photo, self.maps(photo, maps))

    def find_instances(self, photo: Photo, maps: Floats, *, smallest: float = 0.01) -> list[Instance]:
        """The objects of a photograph, told apart by the centres that their positions point to; see `find_instances`.

        Args:
            photo: RGB uint8 [H,W,3].
            maps: [K,H,W] in [0, 1]; K may be 0.
            smallest: pieces below this part of the photograph are dropped.

        Returns:
            The best score first; masks do not overlap.

        Raises:
            InputError: photograph and maps do not fit together; an IRN without displacements.
        """
        check_maps(photo, maps)
        displacement = self.irn.displacements(photo)
        if displacement is None:
            raise InputError("this IRN has no displacements, which tell objects apart; train one with a width above 0.")
        boundary = self.irn.boundaries(photo)
        return find_instances(
            _shrink_to_grid(maps, boundary.device),
            displacement,
            lambda planes: self._spread(boundary, torch.as_tensor(planes, device=boundary.device)),
            (maps.shape[1], maps.shape[2]),
            threshold=self.with_background.threshold,
            smallest=smallest,
        )

    def _spread(self, boundary: Tensor, maps: Tensor) -> Tensor:
        """Maps [K,h,w] after the walk, on the boundary's device."""
        affinity = SparseAffinity.from_pairs(path_affinity(boundary[None], self.radius)[0], self.offsets)
        start = maps.clamp(0, 1) ** self.power * (1 - self.clear * boundary)
        return propagate(start, affinity, self.steps, self.beta, tolerance=self.tolerance)


def _shrink_to_grid(maps: Floats, device: torch.device) -> Tensor:
    """Maps [K,H,W] shrunk to IRN's grid."""
    full = torch.from_numpy(np.ascontiguousarray(maps, np.float32)).to(device)
    return shrink_maps(full, grid_size(maps.shape[1], maps.shape[2]))


def _enlarge_to_photo(planes: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Walked planes [K,h,w] of a grid at the photograph's size; what the series undershoots by its tolerance is 0."""
    return enlarge_planes(planes, stride, size).float().clamp_(min=0)


class AffinityNetWalk:
    """Scores by AffinityNet's random walk, of the background as well (Ahn & Kwak, CVPR 2018).

    Args:
        net: tells the affinities.
        alpha: the background is (1 - the strongest map)^alpha before the walk; 16 in the published code, 6 in SEAM.
        beta: the power of affinities.
        steps: of the walk; 64 in SEAM.
        tolerance: of the walk; see `propagate`.

    Raises:
        InputError: an option out of its range.
    """

    def __init__(
        self,
        net: Affinities,
        alpha: float = AffinityNetWalkSettings.alpha,
        *,
        beta: float = AffinityNetWalkSettings.beta,
        steps: int = AffinityNetWalkSettings.steps,
        tolerance: float | None = TOLERANCE,
    ) -> None:
        _check_walk(beta, steps, tolerance)
        if not 0 < alpha < inf:
            raise InputError(f"alpha={alpha:g}; give a number above 0; the lower, the more background.")
        self.net, self.alpha, self.beta, self.steps, self.tolerance = net, alpha, beta, steps, tolerance

    def maps(self, photo: Photo, maps: Floats) -> Floats:
        """The walked maps over the sum of the strongest one and the background, s_k / (max_j s_j + s_0), [K,H,W].

        A threshold t takes for background where max_j s_j <= s_0 t / (1 - t): t = 0.5 gives the labels of the scores
        themselves, and another one can be chosen like that of any other maps.

        Args:
            photo: RGB uint8 [H,W,3].
            maps: [K,H,W] in [0, 1]; K may be 0.

        Raises:
            InputError: photograph and maps do not fit together.
        """
        scores = self(photo, maps)
        walked = scores[1:]
        total = scores[0] + walked.max(0, initial=0)
        over: Floats = np.divide(walked, total, out=np.zeros_like(walked), where=total > 0)
        return over

    def __call__(self, photo: Photo, maps: Floats) -> Floats:
        """Scores [K+1,H,W]: the walked background and the walked maps."""
        from camplug.wsss.affinitynet import STRIDE as CELL
        from camplug.wsss.affinitynet import make_walk_planes

        check_maps(photo, maps)
        if not len(maps):
            return np.ones((1, *maps.shape[1:]), np.float32)
        planes = np.asarray(make_walk_planes(maps, self.alpha), np.float32)
        walked = propagate(planes, self.net.affinities(photo), self.steps, self.beta, tolerance=self.tolerance)
        scores: Floats = (
            _enlarge_to_photo(torch.from_numpy(walked), CELL, (maps.shape[1], maps.shape[2])).contiguous().numpy()
        )
        return scores


def _check_walk(beta: float, steps: int, tolerance: float | None) -> None:
    """Raises InputError for a number out of range here, not for every image."""
    if not 0 < beta < inf:
        raise InputError(f"beta={beta:g}; give a number above 0; IRN has 10, PSA 8.")
    compute_chebyshev_terms(steps, tolerance)
