"""Multi-label classifiers on any network: building, training, saving and loading.

`ClassifierTraining` and `train_classifier` need lightning; nothing else imports it.
"""

from typing import TYPE_CHECKING

from camplug.lazy import attach_lazy
from camplug.wsss.classifier.checkpoint import load_classifier, save_classifier
from camplug.wsss.classifier.crops import ClassifierCrop, ClassifierCrops
from camplug.wsss.classifier.losses import classification_loss
from camplug.wsss.classifier.maps import normalize_maps
from camplug.wsss.classifier.method import Method, get_training, register_training
from camplug.wsss.classifier.network import Classifier, build_classifier
from camplug.wsss.classifier.settings import PRESETS, LearningSettings, SpanSettings, get_preset

if TYPE_CHECKING:
    from camplug.wsss.classifier.lightning_module import ClassifierTraining
    from camplug.wsss.classifier.train import train_classifier

__all__ = [
    "PRESETS",
    "Classifier",
    "ClassifierTraining",
    "LearningSettings",
    "Method",
    "ClassifierCrop",
    "ClassifierCrops",
    "SpanSettings",
    "classification_loss",
    "load_classifier",
    "normalize_maps",
    "build_classifier",
    "get_preset",
    "get_training",
    "register_training",
    "save_classifier",
    "train_classifier",
]

__getattr__, __dir__ = attach_lazy(
    __name__,
    {
        ".lightning_module": ("ClassifierTraining",),
        ".train": ("train_classifier",),
    },
)
