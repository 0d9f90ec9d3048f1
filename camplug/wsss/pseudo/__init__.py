"""Pseudo-labels: label pictures and instances from activation maps, refined by random walks and dense CRFs."""

from camplug.wsss.pseudo.colour_walk import ColourWalk
from camplug.wsss.pseudo.make import (
    make_labels,
    make_walked_seeds,
    prepare_labels,
    prepare_walked_seeds,
    renumber_to_data,
)
from camplug.wsss.pseudo.make_instances import make_instances
from camplug.wsss.pseudo.refine import PseudoLabels, Scores, Threshold
from camplug.wsss.pseudo.settings import LabelSettings, WalkedMapSettings
from camplug.wsss.pseudo.walk_settings import AffinityNetWalkSettings, ColourWalkSettings, IRNWalkSettings
from camplug.wsss.pseudo.walks import AffinityNetWalk, IRNWalk, MapWalk
from camplug.wsss.store.instance_folder import ImageInstances, InstanceFolder
from camplug.wsss.store.label_folder import LabelFolder

__all__ = [
    "IRNWalk",
    "IRNWalkSettings",
    "ImageInstances",
    "InstanceFolder",
    "LabelFolder",
    "LabelSettings",
    "MapWalk",
    "AffinityNetWalk",
    "AffinityNetWalkSettings",
    "ColourWalk",
    "ColourWalkSettings",
    "PseudoLabels",
    "Scores",
    "Threshold",
    "WalkedMapSettings",
    "renumber_to_data",
    "make_instances",
    "make_labels",
    "make_walked_seeds",
    "prepare_labels",
    "prepare_walked_seeds",
]
