"""Files of trained DeepLab networks."""

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
    """Write a DeepLab network atomically, as plain data and tensors.

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
    """Load a network that `save_deeplab` wrote, in evaluation mode.

    Args:
        path: path of the file.
        model: untrained base network, required where it is a module of your own; it is changed in place.

    Raises:
        InputError: the file is missing or of another kind.
        ModelError: the base network cannot be built or does not fit.
    """
    return DEEPLAB_FILE.load(path, model)
