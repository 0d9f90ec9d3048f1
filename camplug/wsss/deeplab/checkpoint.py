"""Files of trained DeepLab networks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from camplug.wsss.deeplab.network import DeepLab, get_deeplab_settings, rebuild_deeplab
from camplug.wsss.store.network_file import NetworkFile

DEEPLAB_FILE = NetworkFile(
    "deeplab", "is no DeepLab network that camplug has trained", get_deeplab_settings, rebuild_deeplab
)


def save_deeplab(path: str | os.PathLike[str], network: DeepLab, made_with: Mapping[str, Any]) -> None:
    """Write a DeepLab network; see `camplug.wsss.store.network_file.NetworkFile.save`."""
    DEEPLAB_FILE.save(path, network, made_with)


def load_deeplab(path: str | os.PathLike[str], model: nn.Module | None = None) -> DeepLab:
    """Load a trained DeepLab network in evaluation mode; see `camplug.wsss.store.network_file.NetworkFile.load`."""
    return DEEPLAB_FILE.load(path, model)
