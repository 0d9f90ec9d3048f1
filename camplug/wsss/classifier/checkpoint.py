"""A file of a trained classifier: how it is built, what its classes are called, and its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from camplug.models import FILES, MADE_WITH
from camplug.plug import unwrap
from camplug.wsss.classifier.network import Classifier, rebuilt, settings_of
from camplug.wsss.store.network_file import NetworkFile

OF_CLASSIFIERS = NetworkFile(
    "camplug classifier 1",
    "train classifier",
    "is no classifier that camplug has trained (give weights of others as a checkpoint of a model)",
    "was trained on a module of one's own; give it: load_classifier(path, model)",
    settings_of,
    rebuilt,
)


def save_classifier(path: str | os.PathLike[str], network: Classifier, made_with: Mapping[str, Any]) -> None:
    """Write a classifier, whole or not at all; the file holds plain data and tensors only.

    Args:
        path: of the file.
        network: to be written.
        made_with: "model", the text that `camplug.load_model` builds the network under it with (None: a module of
            one's own), and "num_classes" of that network's own head.

    Raises:
        InputError: the place cannot be written.
    """
    OF_CLASSIFIERS.save(path, network, made_with)


def load_classifier(path: str | os.PathLike[str], model: nn.Module | None = None) -> Classifier:
    """The classifier of a file that `save_classifier` wrote, in evaluation mode.

    Args:
        path: of the file.
        model: the untrained network under it, where that was a module of one's own; it is kept and changed.

    Raises:
        InputError: no such file, or one of another kind.
        ModelError: the network under it cannot be built, or is another one.
    """
    return OF_CLASSIFIERS.load(path, model)


def read(name: str) -> dict[str, Any] | None:
    """What a classifier's file holds; None for any other file.

    Raises:
        InputError: there is no such file.
    """
    return OF_CLASSIFIERS.read(name)


def made_with(model: str, num_classes: int | None) -> dict[str, Any]:
    """How the network under a training on `model` is built; a trained classifier's file knows it already.

    Args:
        model: as for `camplug.load_model`.
        num_classes: of its own head.

    Raises:
        InputError: there is no such file.
    """
    if not model.endswith(FILES):
        return {"model": model, "num_classes": num_classes}
    document = read(model)
    return dict(document["made_with"]) if document else {}


def made_with_of(model: nn.Module) -> dict[str, Any]:
    """Return how a model that `camplug.load_model` built is built again; empty for a module of one's own."""
    return dict(getattr(unwrap(model), MADE_WITH, {}))
