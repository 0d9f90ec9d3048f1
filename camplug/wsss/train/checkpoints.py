"""Checkpoints of a training: search for the one to resume from, and conversion to a network file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from camplug.errors import InputError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

LAST = "last.ckpt"
BEST = "best.ckpt"
HEADER = "camplug"  # key of the network file's header in a checkpoint
NETWORK = "network."  # prefix of the network's weights in a checkpoint


def find_checkpoint(folder: Path, module: LightningModule) -> Path | None:
    """Return the newest intact checkpoint of a training, or None without any; damaged newer ones give a warning.

    Args:
        folder: folder of checkpoints.
        module: module to train.

    Raises:
        InputError: all checkpoints are damaged, or one belongs to another training.
    """
    found = sorted(folder.glob("epoch=*.ckpt"), key=_epoch, reverse=True)
    candidates = [file for file in (folder / LAST, *found) if file.exists()]
    damaged: list[str] = []
    for file in candidates:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
            there = {name: tensor.shape for name, tensor in state.items()}
        except Exception:  # torch.load raises nearly anything on damaged files
            damaged.append(file.name)
            continue
        if there != {name: tensor.shape for name, tensor in module.state_dict().items()}:
            raise InputError(
                f"{str(file)!r} belongs to another training (its network is of another shape); give another folder "
                "with --out, or delete it."
            )
        if damaged:
            warnings.warn(
                f"{', '.join(damaged)} in {str(folder)!r} is damaged; the training goes on from {file.name}.",
                stacklevel=3,
            )
        return file
    if damaged:
        raise InputError(f"the checkpoint {str(candidates[0])!r} is damaged; delete it and begin again.")
    return None


def _epoch(file: Path) -> int:
    number = re.fullmatch(r"epoch=(\d+)", file.stem)
    return int(number[1]) if number else -1


def network_in_checkpoint(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Convert a checkpoint to the document of a network file; None for checkpoints without a header.

    Args:
        document: content of the checkpoint.
    """
    header, state = document.get(HEADER), document.get("state_dict")
    if not isinstance(header, dict) or not isinstance(state, dict):
        return None
    weights = {name.removeprefix(NETWORK): value for name, value in state.items() if name.startswith(NETWORK)}
    return {**header, "state": weights}
