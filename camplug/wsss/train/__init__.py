"""Shared parts of all trainings: features through the plug, crops with labels, schedules, checkpoints.

`HeadsResult` needs the dense CRF, among others, and is imported on first use.
"""

from typing import TYPE_CHECKING

from camplug.lazy import attach_lazy
from camplug.wsss.train.backbone import Backbone, pad_to_multiple
from camplug.wsss.train.crops import Crop, LabelCrops, ShuffledSampler, read_labels
from camplug.wsss.train.finite import FiniteLosses, check_finite
from camplug.wsss.train.fit import fit
from camplug.wsss.train.options import FitOptions, HeadsOptions, TrainOptions
from camplug.wsss.train.progress import ProgressCallback
from camplug.wsss.train.result import TrainingResult
from camplug.wsss.train.schedule import ScheduleSettings
from camplug.wsss.train.settings import TrainSettings

if TYPE_CHECKING:
    from camplug.wsss.train.heads_task import HeadsResult

__all__ = [
    "Backbone",
    "Crop",
    "FiniteLosses",
    "FitOptions",
    "HeadsOptions",
    "HeadsResult",
    "LabelCrops",
    "ScheduleSettings",
    "ShuffledSampler",
    "TrainSettings",
    "TrainOptions",
    "TrainingResult",
    "ProgressCallback",
    "pad_to_multiple",
    "fit",
    "read_labels",
    "check_finite",
]

__getattr__, __dir__ = attach_lazy(
    __name__,
    {
        ".heads_task": ("HeadsResult",),
    },
)
