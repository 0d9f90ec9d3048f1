"""Callbacks that `fit` adds to every training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from camplug.wsss.train.checkpoints import HEADER
from camplug.wsss.train.finite import FiniteLosses
from camplug.wsss.train.unreadable import Substitutes


class LossCheck(Callback):
    """Callback that checks a module's losses at the end of every epoch, before validation and checkpoints.

    Modules provide them as the attribute `finite`; others are not checked.
    """

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        losses = getattr(pl_module, "finite", None)
        if isinstance(losses, FiniteLosses) and trainer.is_last_batch:
            losses.check_nonzero() if trainer.current_epoch == 0 else losses.check()


class ReadingCheck(Callback):
    """Callback that stops a training with more than 5 % unreadable images.

    Args:
        substitutes: record of unreadable images.
    """

    def __init__(self, substitutes: Substitutes[Any]) -> None:
        self.substitutes = substitutes

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.substitutes.check()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.substitutes.check()


class HeaderCallback(Callback):
    """Callback that stores the architecture in every checkpoint, so that checkpoints can be used as models.

    Args:
        header: header of the network's file; None stores nothing.
    """

    def __init__(self, header: Mapping[str, Any] | None) -> None:
        self.header = header

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.header is not None:
            checkpoint[HEADER] = dict(self.header)
