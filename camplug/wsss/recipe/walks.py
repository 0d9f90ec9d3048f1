"""Random walks that a recipe can refine seeds with, one description each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from camplug.wsss.affinitynet import AffinityNet, make_alpha_labels
from camplug.wsss.affinitynet.checkpoint import load_affinitynet
from camplug.wsss.affinitynet.network import STRIDE as AFFINITYNET_STRIDE
from camplug.wsss.affinitynet.settings import AffinityNetSettings
from camplug.wsss.affinitynet.train import train_affinitynet
from camplug.wsss.crf import DenseCRF
from camplug.wsss.irn import IRN, make_ir_labels
from camplug.wsss.irn.checkpoint import load_irn
from camplug.wsss.irn.instances import IRN_THRESHOLD
from camplug.wsss.irn.network import STRIDE as IRN_STRIDE
from camplug.wsss.irn.settings import IRNSettings
from camplug.wsss.irn.train import train_irn
from camplug.wsss.pseudo import AffinityNetWalk, ColourWalk, IRNWalk, MapWalk
from camplug.wsss.pseudo.refine import Floats, Photo
from camplug.wsss.pseudo.walk_settings import WALK_SETTINGS

FIXED = "fixed, given by the recipe"


@dataclass(frozen=True)
class Walk:
    """Random walk.

    Attributes:
        settings: dataclass of the walk.
        crf: dense CRF that pseudo-labels get by default.
        threshold: background threshold of the walked maps by default; None if the recipe has to give one.
        make: the walk, from its network (None without one) and the values of `settings`.
    """

    settings: type[Any]
    crf: str
    threshold: float | None
    make: Callable[..., MapWalk]


@dataclass(frozen=True)
class LearnedWalk(Walk):
    """Random walk over the affinities or boundaries of a trained network.

    Attributes:
        training: dataclass of the network's training.
        file: name of the trained network's file.
        stride: pixels per position of the network's labels.
        train: training of the network, see `train_irn`.
        load: trained network, from its file and its classifier.
        build: untrained network, from a `Backbone` and the settings of the network.
        prepare: work for each image that is done once in a training, for estimates of its cost, from the network, a
            photograph, its maps and its dense CRF.
        describe_labels: thresholds of the training's labels in words, from those used and the settings given.
    """

    training: type[Any]
    file: str
    stride: int
    train: Callable[..., Any]
    load: Callable[[Path, nn.Module], nn.Module]
    build: Callable[..., nn.Module]
    prepare: Callable[[Any, Photo, Floats, DenseCRF | None], NDArray[np.uint8]]
    describe_labels: Callable[[Mapping[str, Any], Mapping[str, Any]], str]


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
        training=IRNSettings,
        settings=WALK_SETTINGS["irn"],
        crf="irn",
        threshold=IRN_THRESHOLD,
        file="irn.pt",
        stride=IRN_STRIDE,
        train=train_irn,
        load=load_irn,
        build=IRN,
        make=IRNWalk,
        prepare=_prepare_irn,
        describe_labels=_describe_irn,
    ),
    "affinitynet": LearnedWalk(
        training=AffinityNetSettings,
        settings=WALK_SETTINGS["affinitynet"],
        crf="affinitynet",
        threshold=0.5,  # the walk's own background ends there, see `AffinityNetWalk.maps`
        file="affinitynet.pt",
        stride=AFFINITYNET_STRIDE,
        train=train_affinitynet,
        load=load_affinitynet,
        build=AffinityNet,
        make=AffinityNetWalk,
        prepare=lambda network, photo, maps, crf: make_alpha_labels(maps, crf),
        describe_labels=_describe_affinitynet,
    ),
}

WALKS: dict[str, Walk] = {
    **LEARNED_WALKS,
    "colour": Walk(settings=WALK_SETTINGS["colour"], crf="irn", threshold=None, make=_make_colour_walk),
}
