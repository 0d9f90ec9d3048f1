"""Random walks of plug-ins for `camplug pseudo-labels`, by name or "import:PACKAGE.MODULE:NAME"."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from camplug.cli.walk_network import require_lightning
from camplug.errors import InputError
from camplug.options import split_options
from camplug.settings import update_settings
from camplug.wsss.pseudo.refine import Floats, Photo, Scores, Threshold
from camplug.wsss.pseudo.walk_settings import WALK_SETTINGS

if TYPE_CHECKING:
    from camplug.wsss.pseudo import MapWalk
    from camplug.wsss.recipe import Walk


@dataclass(frozen=True)
class OwnWalk:
    """Random walk of a plug-in with its settings.

    Attributes:
        kind: its name.
        walk: the walk.
        settings: values of its settings.
    """

    kind: str
    walk: Walk
    settings: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """Return what the walked maps depend on."""
        return {"kind": self.kind, "version": self.walk.version, **self.settings}

    def make_scores(self, threshold: float | None) -> Scores:
        """Build what computes the class scores of pixels."""
        return WalkedScores(self.walk.make(None, **self.settings), threshold)


class WalkedScores:
    """Scores of walked maps and a constant background.

    Args:
        walk: random walk.
        threshold: background threshold of the walked maps; None if only maps are made.
    """

    def __init__(self, walk: MapWalk, threshold: float | None) -> None:
        self.maps = walk.maps
        self.threshold = Threshold(threshold or 0.0)

    def __call__(self, photo: Photo, maps: Floats) -> Floats:
        """Compute scores [K+1,H,W]; see `camplug.wsss.pseudo.Scores`."""
        return self.threshold(photo, self.maps(photo, maps))


def find_own_walk(text: str) -> OwnWalk | None:
    """Return the walk of a plug-in with its settings, "NAME?power=3"; None for the walks that come along.

    Raises:
        InputError: there is no such walk or setting, or the walk has a network, which recipes train.
    """
    if text in ("none", *WALK_SETTINGS):
        return None
    require_lightning()
    from camplug.wsss.recipe.walks import LearnedWalk, find_walk

    kind, options = split_options(text, "import:mywalks:POWER?power=3")
    walk = None if kind in ("none", "crf", *WALK_SETTINGS) else find_walk(kind, "--walk")
    if walk is None:
        allowed = ", ".join(["none", *WALK_SETTINGS])
        raise InputError(
            f"--walk {text}: allowed are {allowed}, and walks of plug-ins, by name or import:PACKAGE.MODULE:NAME."
        )
    if isinstance(walk, LearnedWalk):
        raise InputError(f"--walk {text} has a network to train; run it by a recipe, as refine.kind.")
    return OwnWalk(kind, walk, asdict(update_settings(walk.settings(), options, "--walk")))
