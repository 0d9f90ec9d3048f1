"""What all trainings share: features through the plug, crops with labels, schedules, checkpoints."""

from camplug.wsss.train.backbone import Backbone, filled
from camplug.wsss.train.crops import Crop, LabelCrops, Shuffled, label_pictures, read_labels
from camplug.wsss.train.fit import fit, refuse_nan
from camplug.wsss.train.run import Trained, TrainSettings, Watch
from camplug.wsss.train.schedule import Schedule

__all__ = [
    "Backbone",
    "Crop",
    "LabelCrops",
    "Schedule",
    "Shuffled",
    "TrainSettings",
    "Trained",
    "Watch",
    "filled",
    "fit",
    "label_pictures",
    "read_labels",
    "refuse_nan",
]
