"""Random walk of maps over similar colours."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from camplug.wsss.affinity import compute_colour_affinity, propagate
from camplug.wsss.affinity.walk import TOLERANCE
from camplug.wsss.irn.network import grid_size
from camplug.wsss.pseudo.grid_walk import GridWalk, shrink_to_grid
from camplug.wsss.pseudo.refine import Floats, Photo
from camplug.wsss.pseudo.walk_settings import ColourWalkSettings


class ColourWalk(GridWalk):
    """Scores by a random walk over similar colours, without training; a baseline for the learned walks.

    The affinities are those of `compute_colour_affinity`: W = a^beta has the colour scale 30 / sqrt(beta), in steps of
    8-bit colour.

    Args:
        threshold: score of the background; to be chosen for the seeds.
        beta, steps, power: see `ColourWalkSettings`.
        tolerance: bound of the walk's error; see `propagate`.

    Raises:
        InputError: an option is out of its range.
    """

    def __init__(
        self,
        threshold: float,
        *,
        beta: float = ColourWalkSettings.beta,
        steps: int = ColourWalkSettings.steps,
        power: float = ColourWalkSettings.power,
        tolerance: float | None = TOLERANCE,
    ) -> None:
        super().__init__(threshold, beta, steps, power, tolerance)

    @override
    def spread(self, photo: Photo, maps: Floats) -> Tensor:
        affinity = compute_colour_affinity(photo, grid_size(maps.shape[1], maps.shape[2]))
        start = shrink_to_grid(maps, torch.device("cpu")).clamp(0, 1) ** self.power
        return propagate(start, affinity, self.steps, self.beta, tolerance=self.tolerance)
