"""Callbacks that `fit` adds to every training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from camplug.wsss.train.checkpoints import HEADER
from camplug.wsss.train.finite import FiniteLosses
from camplug.wsss.train.progress import TRAINING, ProgressCallback
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


class StepReport(Callback):
    """Callback that reports the steps of a training, of all epochs that are left.

    Args:
        watch: receiver of the steps.
    """

    def __init__(self, watch: ProgressCallback) -> None:
        self.watch, self.stack = watch, ExitStack()
        self.advance: Callable[[], None] = lambda: None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert trainer.max_epochs is not None
        steps = (trainer.max_epochs - trainer.current_epoch) * int(trainer.num_training_batches)
        self.advance = self.stack.enter_context(self.watch.steps(TRAINING, steps))

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.advance()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stack.close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.stack.close()
