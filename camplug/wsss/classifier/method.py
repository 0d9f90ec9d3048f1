"""Strategy interface of classifier training: neck, items and Lightning module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from camplug.errors import InputError
from camplug.wsss.classifier.crops import ClassifierCrops
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.settings import LearningSettings

if TYPE_CHECKING:
    from camplug.wsss.classifier.lightning_module import ClassifierTraining
    from camplug.wsss.train.fit import Items


@dataclass(frozen=True)
class Method:
    """Ordinary training of a multi-label classifier: binary cross-entropy on single images.

    Attributes:
        name: name of the method and its folder.
        needs_trained: requires a classifier that is already trained on the classes.
    """

    name: ClassVar[str] = "classifier"
    needs_trained: ClassVar[bool] = False

    @property
    def group(self) -> int:
        """Number of images per item; several share a class."""
        return 1

    def get_neck_settings(self) -> dict[str, Any] | None:
        """Return kind and settings of the module between body and head; None for no module."""
        return None

    def make_items(self, crops: ClassifierCrops) -> Items:
        """Make the training items."""
        return crops

    def make_module(
        self, network: Classifier, learning: LearningSettings, crops: ClassifierCrops
    ) -> ClassifierTraining:
        """Make the Lightning module that trains a network."""
        from camplug.wsss.classifier.lightning_module import ClassifierTraining

        return ClassifierTraining(network, learning, ids=crops.data.ids, seed=crops.seed)


def check_ramp(ramp: float) -> None:
    """Check the part of the training in which weights rise.

    Raises:
        InputError: `ramp` is not in [0, 1].
    """
    if not 0 <= ramp <= 1:
        raise InputError(f"ramp={ramp}; give a part of the training, 0 to 1.")
