"""IRN: boundaries and object centres learned from pseudo-labels (Ahn, Cho & Kwak, CVPR 2019).

`IRN`, `train_irn`, `load_irn` and `save_irn` need lightning; nothing else imports it.
"""

from typing import TYPE_CHECKING

from camplug.lazy import attach_lazy
from camplug.wsss.irn.instances import (
    Instance,
    cluster_positions,
    cut_instance_maps,
    find_centroids,
    find_instances,
)
from camplug.wsss.irn.labels import label_with_background, make_ir_labels, merge_labels
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
    "find_centroids",
    "cluster_positions",
    "displacement_loss",
    "grid_size",
    "cut_instance_maps",
    "find_instances",
    "make_ir_labels",
    "load_irn",
    "merge_labels",
    "path_affinity",
    "save_irn",
    "train_irn",
    "label_with_background",
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
