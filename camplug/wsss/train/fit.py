"""Train a Lightning module with checkpoints after every epoch, and go on where a run was stopped."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from camplug.errors import InputError, ModelError
from camplug.wsss.train.crops import LabelCrops, Shuffled

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

LAST = "last.ckpt"


def fit(
    module: LightningModule,
    crops: LabelCrops,
    out: Path,
    *,
    epochs: int,
    batch: int,
    device: str = "auto",
    workers: int = 0,
    progress: bool = True,
    callbacks: tuple[Any, ...] = (),
) -> dict[str, float]:
    """Train, with a checkpoint in `out` after every epoch, and the losses of each run in a CSV file of its own.

    Started again after it was stopped it goes on after the last full epoch, and ends with the same weights as a run
    that was not stopped (on one device). A batch is filled up by no other: the last images of an epoch's order are left
    out where they do not fill one.

    Args:
        module: what to train.
        crops: on what.
        out: folder for checkpoints and logs.
        epochs: how often through all images.
        batch: images per step.
        device: "auto", "cpu", "cuda", "cuda:1", ...; one device trains.
        workers: processes that load images beside the one that trains.
        progress: show a bar.
        callbacks: more of Lightning's.

    Returns:
        What the module logged last; nothing where all epochs had been made before.

    Raises:
        InputError: fewer images than one batch; a folder that cannot be made; a checkpoint of another training.
        KeyboardInterrupt: it was stopped by Ctrl-C.
        ModelError: the loss is no number any more.
    """
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    check_batch(crops, batch)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(out)!r} cannot be made ({error.strerror}).") from None
    loader = DataLoader(
        crops,
        batch_size=batch,
        sampler=Shuffled(len(crops), crops.seed),
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    saver = ModelCheckpoint(dirpath=out, filename="{epoch}", save_last=True, save_top_k=1, enable_version_counter=False)
    accelerator, _, number = device.partition(":")
    with _quiet():
        trainer = Trainer(
            max_epochs=epochs,
            accelerator=accelerator,
            devices=[int(number)] if number and accelerator == "cuda" else 1,
            callbacks=[saver, *callbacks],
            logger=CSVLogger(out, name="losses"),
            enable_progress_bar=progress,
            enable_model_summary=False,
            log_every_n_steps=max(1, min(10, len(crops) // batch)),
            num_sanity_val_steps=0,
        )
        before = out / LAST if (out / LAST).exists() else None
        if before is not None:
            _check_checkpoint(before, module)
        hears = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(module, loader, ckpt_path=before)
        except SystemExit:  # how Lightning ends after Ctrl-C, deaf to the next one
            if not trainer.interrupted:
                raise
            signal.signal(signal.SIGINT, hears)
    if trainer.interrupted:
        raise KeyboardInterrupt
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def check_batch(crops: LabelCrops, batch: int) -> None:
    """Refuse a batch that is never full.

    Raises:
        InputError: so it is.
    """
    if len(crops) < batch:
        raise InputError(f"{len(crops)} images do not fill a batch of {batch}; give a smaller batch.")


def _check_checkpoint(file: Path, module: LightningModule) -> None:
    """Raises InputError unless this is a whole checkpoint of such a module."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
        there = {name: tensor.shape for name, tensor in state.items()}
    except Exception as error:  # torch.load raises nearly anything on damaged files
        raise InputError(f"the checkpoint {str(file)!r} is damaged; delete it and begin again.") from error
    if there != {name: tensor.shape for name, tensor in module.state_dict().items()}:
        raise InputError(
            f"{str(file)!r} belongs to another training (its network is of another shape); give another folder with "
            "--out, or delete it."
        )


def refuse_nan(loss: Any, step: int) -> None:
    """Stop a training whose loss is no number any more.

    Raises:
        ModelError: so it is.
    """
    if not bool(loss.isfinite()):
        raise ModelError(f"the loss at step {step} is {loss.item()}; a lower learning rate usually mends that.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's lines about hardware and its hints."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            hints = "does not have many workers|Checkpoint directory|number of training|LeafSpec"
            warnings.filterwarnings("ignore", f".*({hints}).*")
            yield
    finally:
        logger.setLevel(level)
