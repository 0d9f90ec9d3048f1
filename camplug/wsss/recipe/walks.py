"""Random walks that a recipe can refine seeds with, one description each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from typing_extensions import Unpack

from camplug.errors import InputError
from camplug.plugins import PREFIX, import_object, is_same_definition, load_plugins
from camplug.wsss.affinitynet import make_alpha_labels
from camplug.wsss.affinitynet.train import AffinityNetTask
from camplug.wsss.crf import DenseCRF
from camplug.wsss.data import SegmentationData
from camplug.wsss.irn import IRN, make_ir_labels
from camplug.wsss.irn.instances import IRN_THRESHOLD
from camplug.wsss.irn.train import IRNTask
from camplug.wsss.pseudo import AffinityNetWalk, ColourWalk, IRNWalk, MapWalk
from camplug.wsss.pseudo.refine import Floats, Photo
from camplug.wsss.pseudo.walk_settings import WALK_SETTINGS
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.train.heads import load_network
from camplug.wsss.train.heads_task import HeadsResult, HeadsTask
from camplug.wsss.train.options import HeadsOptions

FIXED = "fixed, given by the recipe"


@dataclass(frozen=True)
class Walk:
    """Random walk.

    Attributes:
        settings: dataclass of the walk.
        crf: dense CRF that pseudo-labels get by default.
        threshold: background threshold of the walked maps by default; None if the recipe has to give one.
        make: the walk, from its network (None without one) and the values of `settings`.
        version: number to raise whenever the same settings give other maps.
    """

    settings: type[Any]
    crf: str
    threshold: float | None
    make: Callable[..., MapWalk]
    version: int = field(default=1, kw_only=True)


@dataclass(frozen=True)
class LearnedWalk(Walk):
    """Random walk over the affinities or boundaries of a trained network.

    Attributes:
        task: training of the network.
        prepare: work for each image that is done once in a training, for estimates of its cost, from the network, a
            photograph, its maps and its dense CRF.
        describe_labels: thresholds of the training's labels in words, from those used and the settings given.
    """

    task: type[HeadsTask[Any]]
    prepare: Callable[[Any, Photo, Floats, DenseCRF | None], NDArray[np.uint8]]
    describe_labels: Callable[[Mapping[str, Any], Mapping[str, Any]], str]

    @property
    def file(self) -> str:
        """Name of the trained network's file."""
        return f"{self.task.name}.pt"

    def train(
        self,
        model: nn.Module,
        data: SegmentationData,
        labels_from: SeedFolder | Path,
        out: Path,
        settings: Any,
        **options: Unpack[HeadsOptions],
    ) -> HeadsResult[Any]:
        """Train the network; see `camplug.wsss.irn.train_irn`."""
        return self.task(model, data, labels_from, out, settings, options).run()

    def load(self, path: Path, model: nn.Module) -> nn.Module:
        """Load the trained network from its file and its classifier."""
        network: nn.Module = load_network(path, model, self.task.network_type)
        return network


def _prepare_irn(network: IRN, photo: Photo, maps: Floats, crf: DenseCRF | None) -> NDArray[np.uint8]:
    network.displacements(photo)  # for their mean
    return make_ir_labels(maps, crf)


def _describe_irn(used: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    sources = {"otsu": "Otsu's method on the seeds"}
    parts = [("objects above", "foreground"), ("background up to", "background")]
    return "; ".join(f"{text} {used[name]:.3g}: {sources.get(given[name], FIXED)}" for text, name in parts)


def _describe_affinitynet(used: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    return f"alphas {used['low']:g} and {used['high']:g}: {FIXED}"


def _make_colour_walk(network: None, **settings: Any) -> ColourWalk:
    return ColourWalk(0.0, **settings)  # thresholds are applied later


LEARNED_WALKS = {
    "irn": LearnedWalk(
        settings=WALK_SETTINGS["irn"],
        task=IRNTask,
        crf="irn",
        threshold=IRN_THRESHOLD,
        make=IRNWalk,
        prepare=_prepare_irn,
        describe_labels=_describe_irn,
    ),
    "affinitynet": LearnedWalk(
        settings=WALK_SETTINGS["affinitynet"],
        task=AffinityNetTask,
        crf="affinitynet",
        threshold=0.5,  # the walk's own background ends there, see `AffinityNetWalk.maps`
        make=AffinityNetWalk,
        prepare=lambda network, photo, maps, crf: make_alpha_labels(maps, crf),
        describe_labels=_describe_affinitynet,
    ),
}

WALKS: dict[str, Walk] = {
    **LEARNED_WALKS,
    "colour": Walk(settings=WALK_SETTINGS["colour"], crf="irn", threshold=None, make=_make_colour_walk),
}
WITHOUT_WALK = ("none", "crf")


def register_walk(name: str, walk: Walk) -> None:
    """Make a random walk available to recipes, as `refine.kind`.

    A walk with the same settings class of the same module may be registered again.

    Raises:
        InputError: another walk has the name.
    """
    old = WALKS.get(name)
    if name in WITHOUT_WALK or (old is not None and not is_same_definition(old.settings, walk.settings)):
        raise InputError(f"the walk {name!r} exists already; give the new one another name.")
    WALKS[name] = walk


def find_walk(kind: str, where: str = "refine.kind") -> Walk | None:
    """Return the walk of a kind of refinement; None without a walk.

    Args:
        kind: its name, or "import:PACKAGE.MODULE:NAME".
        where: setting that names it, for messages.

    Raises:
        InputError: there is no such kind, or the imported object is no walk.
    """
    if kind in WITHOUT_WALK:
        return None
    if isinstance(kind, str) and kind.startswith(PREFIX):
        found = import_object(kind)
        if not isinstance(found, Walk):
            raise InputError(f"{where}: {kind!r} is {found!r}; give a camplug.wsss.recipe.Walk.")
        return found
    load_plugins()
    if kind not in WALKS:
        raise InputError(f"{where} = {kind!r}; allowed are {', '.join([*WITHOUT_WALK, *sorted(WALKS)])}.")
    return WALKS[kind]


def find_learned_walk(kind: str) -> LearnedWalk:
    """Return a walk that has a trained network; see `find_walk`."""
    walk = find_walk(kind)
    assert isinstance(walk, LearnedWalk)
    return walk
