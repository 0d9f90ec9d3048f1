"""Random walks of maps over affinities: those of IRN and of AffinityNet."""

from __future__ import annotations

from math import inf
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.affinity import SparseAffinity, make_half_disc, propagate
from camplug.wsss.affinity.walk import TOLERANCE
from camplug.wsss.irn.instances import IRN_THRESHOLD, SMALLEST, Instance, find_instances
from camplug.wsss.irn.paths import path_affinity
from camplug.wsss.pseudo.grid_walk import GridWalk, check_walk, enlarge_to_photo, shrink_to_grid
from camplug.wsss.pseudo.refine import Floats, Photo, check_maps
from camplug.wsss.pseudo.walk_settings import AffinityNetWalkSettings, IRNWalkSettings

NO_DISPLACEMENTS = "this IRN has no displacements, which tell objects apart; train one with a width above 0."


class MapWalk(Protocol):
    """Interface of random walks: `IRNWalk`, `AffinityNetWalk` or `ColourWalk`."""

    def maps(self, photo: Photo, maps: Floats, /) -> Floats:
        """Propagate the maps of a photograph, [K,H,W] in [0, 1]."""


class Boundaries(Protocol):
    """Interface of networks that predict boundaries, such as `IRN`."""

    def boundaries(self, photo: Photo, /) -> Tensor:
        """Predict boundaries [h,w] in [0, 1] on the grid of stride 4."""

    def displacements(self, photo: Photo, /) -> Tensor | None:
        """Predict displacements [2,h,w] in positions of the grid of stride 4; None if the network has none."""


class Affinities(Protocol):
    """Interface of networks that predict affinities, such as `AffinityNet`."""

    def affinities(self, photo: Photo, /) -> SparseAffinity:
        """Predict affinities on the grid of stride 8."""


class IRNWalk(GridWalk):
    """Scores by IRN's random walk, which stops at boundaries (Ahn, Cho & Kwak, CVPR 2019).

    Maps are reduced to the grid of stride 4, raised to `power` and lowered at boundaries, x = M^power (1 - clear B),
    propagated over the affinities of `camplug.wsss.irn.paths`, enlarged, and divided by one maximum over all classes.

    Args:
        irn: network that predicts the boundaries B.
        threshold: score of the background; 0.25 in the paper, for its own seeds; ReCAM .28, RIB .27, FPR .20.
        beta: exponent of affinities.
        steps: number of steps, for grids of about 100 x 100 positions; proportional to the square of the side.
        power: exponent of the maps; AdvCAM, FPR and RIB use 1.5.
        clear: factor by which boundaries lower the maps, 0 to 1; 1 in IRN, where boundaries are thin.
        tolerance: bound of the walk's error; see `propagate`.
        radius: maximum distance of pairs with an affinity, in grid positions, exclusive.

    Raises:
        InputError: an option is out of its range.
    """

    def __init__(
        self,
        irn: Boundaries,
        threshold: float = IRN_THRESHOLD,
        *,
        beta: float = IRNWalkSettings.beta,
        steps: int = IRNWalkSettings.steps,
        power: float = IRNWalkSettings.power,
        clear: float = IRNWalkSettings.clear,
        tolerance: float | None = TOLERANCE,
        radius: int = 5,
    ) -> None:
        super().__init__(threshold, beta, steps, power, tolerance)
        if not 0 <= clear <= 1:
            raise InputError(f"clear={clear:g}; give a number from 0 to 1.")
        self.irn, self.clear = irn, clear
        self.offsets, self.radius = make_half_disc(radius), radius

    @override
    def spread(self, photo: Photo, maps: Floats) -> Tensor:
        boundary = self.irn.boundaries(photo)
        return self._spread(boundary, shrink_to_grid(maps, boundary.device))

    def find_instances(self, photo: Photo, maps: Floats, *, smallest: float = SMALLEST) -> list[Instance]:
        """Find the objects of a photograph by the centres that displacements point to; see `irn.find_instances`.

        Args:
            photo: RGB photograph, uint8 [H,W,3].
            maps: maps [K,H,W] in [0, 1]; K may be 0.
            smallest: minimum area of pieces, relative to the photograph.

        Returns:
            Instances with disjoint masks, in descending order of scores.

        Raises:
            InputError: photograph and maps do not fit, or the IRN has no displacements.
        """
        check_maps(photo, maps)
        displacement = self.irn.displacements(photo)
        if displacement is None:
            raise InputError(NO_DISPLACEMENTS)
        boundary = self.irn.boundaries(photo)
        return find_instances(
            shrink_to_grid(maps, boundary.device),
            displacement,
            lambda planes: self._spread(boundary, torch.as_tensor(planes, device=boundary.device)),
            (maps.shape[1], maps.shape[2]),
            threshold=self.with_background.threshold,
            smallest=smallest,
        )

    def _spread(self, boundary: Tensor, maps: Tensor) -> Tensor:
        """Propagate maps [K,h,w] on the device of the boundary."""
        affinity = SparseAffinity.from_pairs(path_affinity(boundary[None], self.radius)[0], self.offsets)
        start = maps.clamp(0, 1) ** self.power * (1 - self.clear * boundary)
        return propagate(start, affinity, self.steps, self.beta, tolerance=self.tolerance)


class AffinityNetWalk:
    """Scores by AffinityNet's random walk, which includes the background (Ahn & Kwak, CVPR 2018).

    Args:
        net: network that predicts affinities.
        alpha: exponent of the background, (1 - the largest map)^alpha before the walk; 16 in the published code, 6 in
            SEAM.
        beta: exponent of affinities.
        steps: number of steps; 64 in SEAM.
        tolerance: bound of the walk's error; see `propagate`.

    Raises:
        InputError: an option is out of its range.
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
        check_walk(beta, steps, tolerance)
        if not 0 < alpha < inf:
            raise InputError(f"alpha={alpha:g}; give a number above 0; the lower, the more background.")
        self.net, self.alpha, self.beta, self.steps, self.tolerance = net, alpha, beta, steps, tolerance

    def maps(self, photo: Photo, maps: Floats) -> Floats:
        """Propagate maps and divide by the sum of the largest one and the background, s_k / (max_j s_j + s_0), [K,H,W].

        A threshold t selects the background where max_j s_j <= s_0 t / (1 - t): t = 0.5 gives the labels of the scores,
        and other thresholds can be chosen as for any maps.

        Args:
            photo: RGB photograph, uint8 [H,W,3].
            maps: maps [K,H,W] in [0, 1]; K may be 0.

        Raises:
            InputError: photograph and maps do not fit.
        """
        scores = self(photo, maps)
        walked = scores[1:]
        total = scores[0] + walked.max(0, initial=0)
        over: Floats = np.divide(walked, total, out=np.zeros_like(walked), where=total > 0)
        return over

    def __call__(self, photo: Photo, maps: Floats) -> Floats:
        """Compute scores [K+1,H,W]: the propagated background and maps."""
        from camplug.wsss.affinitynet import STRIDE as CELL
        from camplug.wsss.affinitynet import make_walk_planes

        check_maps(photo, maps)
        if not len(maps):
            return np.ones((1, *maps.shape[1:]), np.float32)
        planes = np.asarray(make_walk_planes(maps, self.alpha), np.float32)
        walked = propagate(planes, self.net.affinities(photo), self.steps, self.beta, tolerance=self.tolerance)
        scores: Floats = (
            enlarge_to_photo(torch.from_numpy(walked), CELL, (maps.shape[1], maps.shape[2])).contiguous().numpy()
        )
        return scores
