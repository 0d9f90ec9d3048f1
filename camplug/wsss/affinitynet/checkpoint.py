"""Files of trained AffinityNets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from camplug.wsss.affinitynet.lightning_module import AffinityNet
from camplug.wsss.train.heads import load_network, save_heads


def save_affinitynet(
    path: str | os.PathLike[str], net: AffinityNet, made_with: Mapping[str, Any] | None = None
) -> None:
    """Write the heads of an AffinityNet; see `camplug.wsss.train.heads.save_heads`."""
    save_heads(path, net, made_with or {})


def load_affinitynet(path: str | os.PathLike[str], model: nn.Module) -> AffinityNet:
    """Load a trained AffinityNet on its classifier `model`; see `camplug.wsss.train.heads.load_network`."""
    return load_network(path, model, AffinityNet)
