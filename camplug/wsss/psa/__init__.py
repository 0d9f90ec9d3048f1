"""AffinityNet, known as PSA: affinities learned from the confident parts of activation maps (Ahn & Kwak, CVPR 2018).

`AffinityNet` and `PSASettings` need lightning; the rest does not import it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camplug.wsss.psa.affinities import feature_affinity
from camplug.wsss.psa.labels import alpha_labels, scores_with_background
from camplug.wsss.psa.network import STRIDE, FeatureHead, grid_size
from camplug.wsss.psa.planes import labels_of_planes, refined_labels, walk_planes

if TYPE_CHECKING:
    from camplug.wsss.psa.module import AffinityNet, PSASettings

__all__ = [
    "STRIDE",
    "AffinityNet",
    "FeatureHead",
    "PSASettings",
    "alpha_labels",
    "feature_affinity",
    "grid_size",
    "labels_of_planes",
    "refined_labels",
    "scores_with_background",
    "walk_planes",
]


def __getattr__(name: str) -> Any:
    if name in ("AffinityNet", "PSASettings"):
        return getattr(import_module("camplug.wsss.psa.module"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
