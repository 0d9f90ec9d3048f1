"""IRN: boundaries and object centres learned from pseudo-labels (Ahn, Cho & Kwak, CVPR 2019).

`IRN` and `IRNSettings` need lightning; the rest does not import it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camplug.wsss.irn.instances import Instance, centroids, cluster, instance_maps, instances
from camplug.wsss.irn.labels import ir_labels, merged, with_background
from camplug.wsss.irn.losses import displacement_loss
from camplug.wsss.irn.network import BoundaryHead, DisplacementHead, grid_size
from camplug.wsss.irn.paths import path_affinity

if TYPE_CHECKING:
    from camplug.wsss.irn.module import IRN, IRNSettings

__all__ = [
    "IRN",
    "BoundaryHead",
    "DisplacementHead",
    "IRNSettings",
    "Instance",
    "centroids",
    "cluster",
    "displacement_loss",
    "grid_size",
    "instance_maps",
    "instances",
    "ir_labels",
    "merged",
    "path_affinity",
    "with_background",
]


def __getattr__(name: str) -> Any:
    if name in ("IRN", "IRNSettings"):
        return getattr(import_module("camplug.wsss.irn.module"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
