"""Files of trained classifiers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from camplug.models import FILES, MADE_WITH
from camplug.plug import unwrap
from camplug.wsss.classifier.network import Classifier, get_classifier_settings, rebuild_classifier
from camplug.wsss.store.network_file import NetworkFile

CLASSIFIER_FILE = NetworkFile(
    "camplug classifier 1",
    "train classifier",
    "is no classifier that camplug has trained (give weights of others as a checkpoint of a model)",
    "was trained on a module of one's own; give it: load_classifier(path, model)",
    get_classifier_settings,
    rebuild_classifier,
)


def save_classifier(path: str | os.PathLike[str], network: Classifier, made_with: Mapping[str, Any]) -> None:
    """Write a classifier atomically, as plain data and tensors.

    Args:
        path: path of the file.
        network: network to write.
        made_with: "model", the specification of the base network for `camplug.load_model` (None for a module of your
            own), and "num_classes" of its own head.

    Raises:
        InputError: the path cannot be written.
    """
    CLASSIFIER_FILE.save(path, network, made_with)


def load_classifier(path: str | os.PathLike[str], model: nn.Module | None = None) -> Classifier:
    """Load a classifier that `save_classifier` wrote, in evaluation mode.

    Args:
        path: path of the file.
        model: untrained base network, required where it is a module of your own; it is changed in place.

    Raises:
        InputError: the file is missing or of another kind.
        ModelError: the base network cannot be built or does not fit.
    """
    return CLASSIFIER_FILE.load(path, model)


def read_classifier(name: str) -> dict[str, Any] | None:
    """Read the document of a classifier's file; None for any other file.

    Raises:
        InputError: the file is missing.
    """
    return CLASSIFIER_FILE.read(name)


def read_made_with(model: str, num_classes: int | None) -> dict[str, Any]:
    """Return the specification of a training's base network; the file of a trained classifier contains it.

    Args:
        model: specification for `camplug.load_model`.
        num_classes: number of classes of its own head.

    Raises:
        InputError: the file is missing.
    """
    if not model.endswith(FILES):
        return {"model": model, "num_classes": num_classes}
    document = read_classifier(model)
    return dict(document["made_with"]) if document else {}


def get_made_with(model: nn.Module) -> dict[str, Any]:
    """Return the specification of a model that `camplug.load_model` built; empty for a module of your own."""
    return dict(getattr(unwrap(model), MADE_WITH, {}))
