"""Files of trained AffinityNets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from camplug.settings import restore_settings
from camplug.wsss.affinitynet.lightning_module import AffinityNet
from camplug.wsss.affinitynet.settings import AffinityNetHeadSettings
from camplug.wsss.train.heads import load_network, save_heads


def save_affinitynet(
    path: str | os.PathLike[str], net: AffinityNet, made_with: Mapping[str, Any] | None = None
) -> None:
    """Write the head of an AffinityNet; see `save_heads`.

    Raises:
        InputError: the path cannot be written.
    """
    save_heads(
        path, "affinitynet", asdict(net.settings), net.state_dict(), backbone=net.backbone, made_with=made_with or {}
    )


def load_affinitynet(path: str | os.PathLike[str], model: nn.Module) -> AffinityNet:
    """Load a trained AffinityNet, on the classifier's device and in evaluation mode.

    Args:
        path: path of a file that `save_affinitynet` or `camplug train affinitynet` wrote.
        model: classifier that it was trained on.

    Raises:
        InputError: the file is missing or holds no trained AffinityNet, or the classifier is another one.
    """
    return load_network(
        path,
        model,
        "affinitynet",
        lambda backbone, settings: AffinityNet(backbone, restore_settings(AffinityNetHeadSettings, settings)),
    )
