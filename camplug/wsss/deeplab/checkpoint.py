"""A file of a trained DeepLab network: how it is built, what its classes are called, and its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from camplug.wsss.deeplab.network import DeepLab, rebuilt, settings_of
from camplug.wsss.store.network_file import NetworkFile

OF_DEEPLABS = NetworkFile(
    "camplug deeplab 1",
    "train deeplab",
    "is no DeepLab network that camplug has trained",
    "was trained on a module of one's own; give it: load_deeplab(path, model)",
    settings_of,
    rebuilt,
)


def save_deeplab(path: str | os.PathLike[str], network: DeepLab, made_with: Mapping[str, Any]) -> None:
    """Write a DeepLab network, whole or not at all; the file holds plain data and tensors only.

    Args:
        path: of the file.
        network: to be written.
        made_with: "model", the text that `camplug.load_model` builds the network under it with (None: a module of
            one's own), and "num_classes" of that network's own head.

    Raises:
        InputError: the place cannot be written.
    """
    OF_DEEPLABS.save(path, network, made_with)


def load_deeplab(path: str | os.PathLike[str], model: nn.Module | None = None) -> DeepLab:
    """The network of a file that `save_deeplab` wrote, in evaluation mode.

    Args:
        path: of the file.
        model: the untrained network under it, where that was a module of one's own; it is kept and changed.

    Raises:
        InputError: no such file, or one of another kind.
        ModelError: the network under it cannot be built, or is another one.
    """
    return OF_DEEPLABS.load(path, model)
