"""AffinityNet, known as PSA: affinities learned from the confident parts of activation maps (Ahn & Kwak, CVPR 2018).

`AffinityNet`, `train_affinitynet`, `load_affinitynet` and `save_affinitynet` need lightning; nothing else imports it.
"""

from typing import TYPE_CHECKING

from camplug.lazy import attach_lazy
from camplug.wsss.affinitynet.affinities import feature_affinity
from camplug.wsss.affinitynet.labels import add_background_scores, make_alpha_labels
from camplug.wsss.affinitynet.network import STRIDE, FeatureHead, grid_size
from camplug.wsss.affinitynet.planes import make_walk_planes

if TYPE_CHECKING:
    from camplug.wsss.affinitynet.checkpoint import load_affinitynet, save_affinitynet
    from camplug.wsss.affinitynet.lightning_module import AffinityNet
    from camplug.wsss.affinitynet.settings import AffinityNetHeadSettings, AffinityNetSettings
    from camplug.wsss.affinitynet.train import train_affinitynet

__all__ = [
    "STRIDE",
    "AffinityNet",
    "FeatureHead",
    "AffinityNetHeadSettings",
    "AffinityNetSettings",
    "make_alpha_labels",
    "feature_affinity",
    "grid_size",
    "load_affinitynet",
    "save_affinitynet",
    "add_background_scores",
    "train_affinitynet",
    "make_walk_planes",
]

__getattr__, __dir__ = attach_lazy(
    __name__,
    {
        ".checkpoint": ("load_affinitynet", "save_affinitynet"),
        ".lightning_module": ("AffinityNet",),
        ".settings": ("AffinityNetHeadSettings", "AffinityNetSettings"),
        ".train": ("train_affinitynet",),
    },
)
