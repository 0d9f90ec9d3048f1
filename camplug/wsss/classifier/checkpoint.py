"""Files of trained classifiers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from camplug.models import FILES
from camplug.wsss.classifier.network import Classifier, get_classifier_settings, rebuild_classifier
from camplug.wsss.store.network_file import NetworkFile

CLASSIFIER_FILE = NetworkFile(
    "classifier",
    "is no classifier that camplug has trained (give weights of others as a checkpoint of a model)",
    get_classifier_settings,
    rebuild_classifier,
)


def save_classifier(path: str | os.PathLike[str], network: Classifier, made_with: Mapping[str, Any]) -> None:
    """Write a classifier; see `camplug.wsss.store.network_file.NetworkFile.save`."""
    CLASSIFIER_FILE.save(path, network, made_with)


def load_classifier(path: str | os.PathLike[str], model: nn.Module | None = None) -> Classifier:
    """Load a trained classifier in evaluation mode; see `camplug.wsss.store.network_file.NetworkFile.load`."""
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
