"""What all trainings share: features through the plug, crops with labels, schedules, checkpoints.

`Trained` and `TrainSettings` bring along what makes labels, the dense CRF among it, and are imported when asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camplug.wsss.train.backbone import Backbone, filled
from camplug.wsss.train.crops import Crop, LabelCrops, Shuffled, read_labels
from camplug.wsss.train.finite import FiniteLosses, refuse_nan
from camplug.wsss.train.fit import fit
from camplug.wsss.train.schedule import Schedule
from camplug.wsss.train.watch import Watch

if TYPE_CHECKING:
    from camplug.wsss.train.run import Trained, TrainSettings

__all__ = [
    "Backbone",
    "Crop",
    "FiniteLosses",
    "LabelCrops",
    "Schedule",
    "Shuffled",
    "TrainSettings",
    "Trained",
    "Watch",
    "filled",
    "fit",
    "read_labels",
    "refuse_nan",
]


def __getattr__(name: str) -> Any:
    if name in ("TrainSettings", "Trained"):
        return getattr(import_module(f"{__name__}.run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
