"""An ordinary multi-label classifier over any network: how it is built, trained, written and read.

What trains (`ClassifierTraining`, `train_classifier`) needs lightning; the rest does not import it.
"""

from typing import TYPE_CHECKING

from camplug.lazy import attach_lazy
from camplug.wsss.classifier.checkpoint import load_classifier, save_classifier
from camplug.wsss.classifier.crops import ClassifierCrops, Picture
from camplug.wsss.classifier.losses import classification_loss
from camplug.wsss.classifier.maps import normalized_maps
from camplug.wsss.classifier.method import Method
from camplug.wsss.classifier.network import Classifier, over
from camplug.wsss.classifier.settings import PRESETS, LearningSettings, SpanSettings, preset

if TYPE_CHECKING:
    from camplug.wsss.classifier.lightning_module import ClassifierTraining
    from camplug.wsss.classifier.train import TrainedClassifier, train_classifier

__all__ = [
    "PRESETS",
    "Classifier",
    "ClassifierTraining",
    "LearningSettings",
    "Method",
    "Picture",
    "ClassifierCrops",
    "SpanSettings",
    "TrainedClassifier",
    "classification_loss",
    "load_classifier",
    "normalized_maps",
    "over",
    "preset",
    "save_classifier",
    "train_classifier",
]

__getattr__, __dir__ = attach_lazy(
    __name__,
    {
        ".lightning_module": ("ClassifierTraining",),
        ".train": ("TrainedClassifier", "train_classifier"),
    },
)
