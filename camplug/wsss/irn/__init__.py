"""IRN: boundaries and object centres learned from pseudo-labels (Ahn, Cho & Kwak, CVPR 2019).

What trains, or was trained (`IRN`, `train_irn`, `load_irn`, ...),
needs lightning; the rest does not import it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camplug.wsss.irn.instances import Instance, centroids, cluster, instance_maps, instances
from camplug.wsss.irn.labels import ir_labels, merged, with_background
from camplug.wsss.irn.losses import displacement_loss
from camplug.wsss.irn.network import BoundaryHead, DisplacementHead, grid_size
from camplug.wsss.irn.paths import path_affinity

if TYPE_CHECKING:
    from camplug.wsss.irn.files import load_irn, save_irn
    from camplug.wsss.irn.module import IRN, IRNSettings
    from camplug.wsss.irn.run import IRNTraining, train_irn

__all__ = [
    "IRN",
    "BoundaryHead",
    "DisplacementHead",
    "IRNSettings",
    "IRNTraining",
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

_WITH_LIGHTNING = {
    "IRN": "module",
    "IRNSettings": "module",
    "IRNTraining": "run",
    "load_irn": "files",
    "save_irn": "files",
    "train_irn": "run",
}


def __getattr__(name: str) -> Any:
    if name in _WITH_LIGHTNING:
        return getattr(import_module(f"{__name__}.{_WITH_LIGHTNING[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
