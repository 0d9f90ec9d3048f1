"""IRN: boundaries and object centres learned from pseudo-labels (Ahn, Cho & Kwak, CVPR 2019).

What trains, or was trained (`IRN`, `train_irn`, `load_irn`, ...),
needs lightning; the rest does not import it.
"""

from typing import TYPE_CHECKING

from camplug.lazy import attach_lazy
from camplug.wsss.irn.instances import Instance, centroids, cluster, instance_maps, instances
from camplug.wsss.irn.labels import ir_labels, merged, with_background
from camplug.wsss.irn.losses import displacement_loss
from camplug.wsss.irn.network import BoundaryHead, DisplacementHead, grid_size
from camplug.wsss.irn.paths import path_affinity

if TYPE_CHECKING:
    from camplug.wsss.irn.checkpoint import load_irn, save_irn
    from camplug.wsss.irn.lightning_module import IRN
    from camplug.wsss.irn.settings import IRNHeadSettings, IRNSettings
    from camplug.wsss.irn.train import train_irn

__all__ = [
    "IRN",
    "BoundaryHead",
    "DisplacementHead",
    "IRNHeadSettings",
    "IRNSettings",
    "Instance",
    "centroids",
    "cluster",
    "displacement_loss",
    "grid_size",
    "instance_maps",
    "instances",
    "ir_labels",
    "load_irn",
    "merged",
    "path_affinity",
    "save_irn",
    "train_irn",
    "with_background",
]

__getattr__, __dir__ = attach_lazy(
    __name__,
    {
        ".checkpoint": ("load_irn", "save_irn"),
        ".lightning_module": ("IRN",),
        ".settings": ("IRNHeadSettings", "IRNSettings"),
        ".train": ("train_irn",),
    },
)
