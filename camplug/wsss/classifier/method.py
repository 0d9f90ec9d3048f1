"""What one way of training a classifier brings along; the ordinary one brings nothing."""

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
    """Train a multi-label classifier in the ordinary way: binary cross-entropy on single images.

    Attributes:
        name: of the method, and of its folder.
        needs_trained: it starts from a classifier that is trained on the classes already.
    """

    name: ClassVar[str] = "classifier"
    needs_trained: ClassVar[bool] = False

    @property
    def group(self) -> int:
        """Images that an item holds; several share a class."""
        return 1

    def neck(self) -> dict[str, Any] | None:
        """What stands between body and head: its kind and settings."""
        return None

    def items(self, pictures: ClassifierCrops) -> Items:
        """What a training runs through."""
        return pictures

    def module(self, network: Classifier, learning: LearningSettings, pictures: ClassifierCrops) -> ClassifierTraining:
        """What trains the network."""
        from camplug.wsss.classifier.lightning_module import ClassifierTraining

        return ClassifierTraining(network, learning, ids=pictures.data.ids, seed=pictures.seed)


def check_ramp(ramp: float) -> None:
    """Refuse a part of the training, over which weights rise, that is none.

    Raises:
        InputError: it is not from 0 to 1.
    """
    if not 0 <= ramp <= 1:
        raise InputError(f"ramp={ramp}; give a part of the training, 0 to 1.")
