"""AffinityNet, known as PSA: affinities learned from the confident parts of activation maps (Ahn & Kwak, CVPR 2018).

What trains, or was trained (`AffinityNet`, `train_affinitynet`, `load_affinitynet`, ...),
needs lightning; the rest does not import it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camplug.wsss.psa.affinities import feature_affinity
from camplug.wsss.psa.labels import alpha_labels, scores_with_background
from camplug.wsss.psa.network import STRIDE, FeatureHead, grid_size
from camplug.wsss.psa.planes import labels_of_planes, refined_labels, walk_planes

if TYPE_CHECKING:
    from camplug.wsss.psa.files import load_affinitynet, save_affinitynet
    from camplug.wsss.psa.module import AffinityNet, PSASettings
    from camplug.wsss.psa.run import PSATraining, train_affinitynet

__all__ = [
    "STRIDE",
    "AffinityNet",
    "FeatureHead",
    "PSASettings",
    "PSATraining",
    "alpha_labels",
    "feature_affinity",
    "grid_size",
    "labels_of_planes",
    "load_affinitynet",
    "refined_labels",
    "save_affinitynet",
    "scores_with_background",
    "train_affinitynet",
    "walk_planes",
]

_WITH_LIGHTNING = {
    "AffinityNet": "module",
    "PSASettings": "module",
    "PSATraining": "run",
    "load_affinitynet": "files",
    "save_affinitynet": "files",
    "train_affinitynet": "run",
}


def __getattr__(name: str) -> Any:
    if name in _WITH_LIGHTNING:
        return getattr(import_module(f"{__name__}.{_WITH_LIGHTNING[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
