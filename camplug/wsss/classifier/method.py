"""Strategy interface of classifier training: neck, items and Lightning module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from camplug.errors import InputError
from camplug.plugins import PREFIX, import_object, is_same_definition, load_plugins
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


_METHODS: dict[str, type[Method]] = {}


def register_training(cls: type[Method]) -> type[Method]:
    """Make a training method available to recipes by its `name`; a class decorator.

    The same class of the same module may be registered again.

    Raises:
        InputError: another class has the name.
    """
    old = _METHODS.get(cls.name)
    if old is not None and not is_same_definition(old, cls):
        raise InputError(
            f"the training method {cls.name!r} is taken by {old.__module__}.{old.__qualname__}; give the new one "
            "another name."
        )
    _METHODS[cls.name] = cls
    return cls


def list_trainings() -> list[str]:
    """Return the names of the registered training methods, those of plug-ins included."""
    load_plugins()
    return list(_METHODS)


def get_training(name: str) -> type[Method]:
    """Return a training method by its name, or by "import:PACKAGE.MODULE:NAME", which registers it.

    Raises:
        InputError: there is no such method.
    """
    if name.startswith(PREFIX):
        found = import_object(name)
        if not (isinstance(found, type) and issubclass(found, Method)):
            raise InputError(f"{name!r} is {found!r}; give a class derived from camplug.wsss.classifier.Method.")
        return register_training(found)
    known = list_trainings()
    if name not in known:
        raise InputError(f"there is no training method {name!r}; allowed are {', '.join(known)}.")
    return _METHODS[name]


def check_ramp(ramp: float) -> None:
    """Check the part of the training in which weights rise.

    Raises:
        InputError: `ramp` is not in [0, 1].
    """
    if not 0 <= ramp <= 1:
        raise InputError(f"ramp={ramp}; give a part of the training, 0 to 1.")


register_training(Method)
