"""An ordinary multi-label classifier over any network: how it is built, trained, written and read.

What trains (`ClassifierTraining`, `train_classifier`) needs lightning; the rest does not import it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camplug.wsss.classifier.files import load_classifier, save_classifier
from camplug.wsss.classifier.learning import PRESETS, Learning, Span, preset
from camplug.wsss.classifier.losses import classification_loss
from camplug.wsss.classifier.maps import normalized_maps
from camplug.wsss.classifier.method import Method
from camplug.wsss.classifier.network import Classifier, over
from camplug.wsss.classifier.pictures import Picture, Pictures

if TYPE_CHECKING:
    from camplug.wsss.classifier.module import ClassifierTraining
    from camplug.wsss.classifier.run import TrainedClassifier, train_classifier

__all__ = [
    "PRESETS",
    "Classifier",
    "ClassifierTraining",
    "Learning",
    "Method",
    "Picture",
    "Pictures",
    "Span",
    "TrainedClassifier",
    "classification_loss",
    "load_classifier",
    "normalized_maps",
    "over",
    "preset",
    "save_classifier",
    "train_classifier",
]

_WITH_LIGHTNING = {"ClassifierTraining": "module", "TrainedClassifier": "run", "train_classifier": "run"}


def __getattr__(name: str) -> Any:
    if name in _WITH_LIGHTNING:
        return getattr(import_module(f"{__name__}.{_WITH_LIGHTNING[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
