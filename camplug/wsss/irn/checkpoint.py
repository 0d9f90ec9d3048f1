"""Files of trained IRNets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from camplug.settings import restore_settings
from camplug.wsss.irn.lightning_module import IRN
from camplug.wsss.irn.settings import IRNHeadSettings
from camplug.wsss.train.heads import load_network, save_heads


def save_irn(path: str | os.PathLike[str], irn: IRN, made_with: Mapping[str, Any] | None = None) -> None:
    """Write the heads of an IRNet; see `save_heads`.

    Raises:
        InputError: the path cannot be written.
    """
    save_heads(path, "irn", asdict(irn.settings), irn.state_dict(), backbone=irn.backbone, made_with=made_with or {})


def load_irn(path: str | os.PathLike[str], model: nn.Module) -> IRN:
    """Load a trained IRNet, on the classifier's device and in evaluation mode.

    Args:
        path: path of a file that `save_irn` or `camplug train irn` wrote.
        model: classifier that it was trained on.

    Raises:
        InputError: the file is missing or holds no trained IRNet, or the classifier is another one.
    """
    return load_network(
        path, model, "irn", lambda backbone, settings: IRN(backbone, restore_settings(IRNHeadSettings, settings))
    )
