"""Settings of the random walks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from camplug.wsss.affinity.walk import BETA, STEPS
from camplug.wsss.affinitynet.labels import ALPHA


@dataclass(frozen=True)
class IRNWalkSettings:
    """Settings of `IRNWalk`, checked there.

    Args:
        beta: power of the affinities.
        steps: steps of the walk.
        power: power of the maps; AdvCAM, FPR and RIB use 1.5.
        clear: factor by which boundaries lower the maps, 0 to 1.
    """

    beta: float = BETA
    steps: int = STEPS
    power: float = 1.0
    clear: float = 1.0


@dataclass(frozen=True)
class AffinityNetWalkSettings:
    """Settings of `AffinityNetWalk`, checked there.

    Args:
        alpha: power of the background's score; the lower, the more background.
        beta: power of the affinities.
        steps: steps of the walk.
    """

    alpha: float = ALPHA
    beta: float = 8.0
    steps: int = STEPS


@dataclass(frozen=True)
class ColourWalkSettings:
    """Settings of `ColourWalk`, checked there.

    Args:
        beta: power of the affinities.
        steps: steps of the walk.
        power: power of the maps.
    """

    beta: float = 30.0
    steps: int = 32
    power: float = 1.0


WALK_SETTINGS: dict[str, type[Any]] = {
    "irn": IRNWalkSettings,
    "affinitynet": AffinityNetWalkSettings,
    "colour": ColourWalkSettings,
}
UNTRAINED_WALKS = ("colour",)
