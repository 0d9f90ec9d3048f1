"""Files of trained IRNets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from camplug.wsss.irn.lightning_module import IRN
from camplug.wsss.train.heads import load_network, save_heads


def save_irn(path: str | os.PathLike[str], irn: IRN, made_with: Mapping[str, Any] | None = None) -> None:
    """Write the heads of an IRNet; see `camplug.wsss.train.heads.save_heads`."""
    save_heads(path, irn, made_with or {})


def load_irn(path: str | os.PathLike[str], model: nn.Module) -> IRN:
    """Load a trained IRNet on its classifier `model`; see `camplug.wsss.train.heads.load_network`."""
    return load_network(path, model, IRN)
