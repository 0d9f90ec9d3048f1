"""A file of a trained DeepLab network: how it is built, what its classes are called, and its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from camplug.wsss.deeplab.network import DeepLab, get_deeplab_settings, rebuild_deeplab
from camplug.wsss.store.network_file import NetworkFile

DEEPLAB_FILE = NetworkFile(
    "camplug deeplab 1",
    "train deeplab",
    "is no DeepLab network that camplug has trained",
    "was trained on a module of one's own; give it: load_deeplab(path, model)",
    get_deeplab_settings,
    rebuild_deeplab,
)


def save_deeplab(path: str | os.PathLike[str], network: DeepLab, made_with: Mapping[str, Any]) -> None:
    """Write a DeepLab network, whole or not at all; the file holds plain data and tensors only.

    Args:
        path: path of the file.
        network: network to write.
        made_with: "model", the specification of the base network for `camplug.load_model` (None for a module of your
            own), and "num_classes" of its own head.

    Raises:
        InputError: the path cannot be written.
    """
    DEEPLAB_FILE.save(path, network, made_with)


def load_deeplab(path: str | os.PathLike[str], model: nn.Module | None = None) -> DeepLab:
    """The network of a file that `save_deeplab` wrote, in evaluation mode.

    Args:
        path: path of the file.
        model: untrained base network, required where it is a module of your own; it is changed in place.

    Raises:
        InputError: the file is missing or of another kind.
        ModelError: the base network cannot be built or does not fit.
    """
    return DEEPLAB_FILE.load(path, model)
