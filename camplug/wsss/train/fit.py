"""Train a Lightning module with checkpoints after every epoch, and go on where a run was stopped."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch.utils.data import DataLoader

from camplug.errors import InputError
from camplug.wsss.store.jobs import share
from camplug.wsss.train.checkpoints import BEST, find_checkpoint
from camplug.wsss.train.crops import Shuffled

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


class Items(Protocol):
    """What a training runs through: items by (epoch, number), the same ones in every run of a seed."""

    seed: int

    def __len__(self) -> int: ...

    def __getitem__(self, which: tuple[int, int]) -> Any: ...


def fit(
    module: LightningModule,
    items: Items,
    out: Path,
    *,
    epochs: int,
    batch: int,
    device: str = "auto",
    workers: int = 0,
    progress: bool = True,
    callbacks: tuple[Any, ...] = (),
    validation: Items | None = None,
    best: str | None = None,
    amp: bool = False,
    log: Literal["csv", "tensorboard"] = "csv",
    accumulate: int = 1,
    header: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train, with a checkpoint in `out` after every epoch, and the losses of each run in a log of its own.

    Started again after it was stopped it goes on after the last full epoch, and ends with the same weights as a run
    that was not stopped (on one device). A batch is filled up by no other: the last images of an epoch's order are left
    out where they do not fill one. Under torchrun, every process trains on its share of each batch.

    Args:
        module: what to train.
        items: on what.
        out: folder for checkpoints and logs.
        epochs: how often through all images.
        batch: images per step.
        device: "auto", "cpu", "cuda", "cuda:1", ...; one device trains.
        workers: processes that load images beside the one that trains.
        progress: show a bar.
        callbacks: more of Lightning's.
        validation: what the module is validated on after every epoch.
        best: what the validation logs; the weights of the epoch where it was largest are those that remain, instead of
            the last ones.
        amp: half precision where it is safe, on CUDA only: bfloat16 where the device has it, which needs no scaling of
            losses, else float16.
        log: "csv", or "tensorboard", which needs that package.
        accumulate: batches per step of the optimizer; their gradients are averaged.
        header: of the network's file, as plain data; with it checkpoints can be used as models, too.

    Returns:
        What the module logged last; nothing where all epochs had been made before.

    Raises:
        InputError: fewer images than one batch, or one that processes cannot share evenly; a folder that cannot be
            made; checkpoints of another training, or damaged ones only; no tensorboard.
        KeyboardInterrupt: it was stopped by Ctrl-C.
        ModelError: the loss is no number any more.
    """
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from camplug.wsss.train.callbacks import ChecksLosses, ChecksReading, KeepsHeader

    check_batch(items, batch * accumulate)
    rank, world = share()
    whole = Shuffled(len(items), items.seed, batch=batch, share=(rank, world))  # refuses what cannot be shared
    whole.batch = batch * accumulate  # no step of fewer batches than the others at the end of an epoch
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(out)!r} cannot be made ({error.strerror}).") from None
    accelerator, _, number = device.partition(":")
    on_cuda = accelerator in ("cuda", "gpu") or (accelerator == "auto" and torch.cuda.is_available())
    # pinned, batches are copied to the device while it works on the one before
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": on_cuda}
    loader: DataLoader[Any] = DataLoader(
        items,  # type: ignore[arg-type]
        batch_size=batch // world,
        sampler=whole,
        persistent_workers=workers > 0,
        **options,
    )
    held_out = None
    if validation is not None:
        mine = [(0, i) for i in range(rank, len(validation), world)]
        collate = getattr(validation, "collate", None)  # leaves out what cannot be read
        held_out = DataLoader[Any](
            validation,  # type: ignore[arg-type]
            batch_size=batch,
            sampler=mine,
            collate_fn=collate,
            **options,
        )
    kept = ModelCheckpoint(dirpath=out, filename="{epoch}", save_last=True, save_top_k=1, enable_version_counter=False)
    savers = [kept]
    if best is not None:
        name = BEST.removesuffix(".ckpt")
        savers.append(
            ModelCheckpoint(dirpath=out, filename=name, monitor=best, mode="max", enable_version_counter=False)
        )
    substitutes = getattr(items, "substitutes", None)
    reading = [] if substitutes is None else [ChecksReading(substitutes)]
    bars = [_bar()] if progress and on_cuda else []
    with _quiet():
        trainer = Trainer(
            max_epochs=epochs,
            accelerator=accelerator,
            callbacks=[*savers, ChecksLosses(), KeepsHeader(header), *reading, *bars, *callbacks],
            logger=_logger(log, out),
            enable_progress_bar=progress,
            enable_model_summary=False,
            log_every_n_steps=max(1, min(10, len(items) // batch)),
            num_sanity_val_steps=0,
            precision=_precision(number) if amp and on_cuda else "32-true",
            use_distributed_sampler=False,
            accumulate_grad_batches=accumulate,
            plugins=[_environment()],
            **_devices(accelerator, number, world),
        )
        before = find_checkpoint(out, module)
        hears = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(module, loader, held_out, ckpt_path=before)
        except SystemExit:  # how Lightning ends after Ctrl-C, deaf to the next one
            if not trainer.interrupted:
                raise
            signal.signal(signal.SIGINT, hears)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if best is not None and (out / BEST).exists():
        module.load_state_dict(torch.load(out / BEST, map_location="cpu", weights_only=True)["state_dict"])
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _precision(number: str) -> Literal["bf16-mixed", "16-mixed"]:
    """Return the mixed precision of a CUDA device: bfloat16 where it can, as float16 needs losses to be scaled."""
    with torch.cuda.device(int(number) if number else None):
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def _bar() -> Any:
    """A progress bar that reads the loss, and so waits for the device, at every tenth step only."""
    from lightning.pytorch.callbacks import RichProgressBar

    return RichProgressBar(refresh_rate=10)


def _devices(accelerator: str, number: str, world: int) -> dict[str, Any]:
    """What runs the training: one device, or one for each process that torchrun has started."""
    if world > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
        return {"devices": here, "num_nodes": world // here, "strategy": "ddp"}
    return {"devices": [int(number)] if number and accelerator == "cuda" else 1}


def _environment() -> Any:
    """Return how processes find each other: by torchrun or not at all, whatever a cluster's variables say."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()


def _logger(log: str, out: Path) -> Any:
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    if log == "csv":
        return CSVLogger(out, name="losses")
    if log != "tensorboard":
        raise InputError(f"log={log!r}; allowed are csv and tensorboard.")
    try:
        return TensorBoardLogger(out, name="losses")
    except ModuleNotFoundError:
        raise InputError("log='tensorboard' needs a package; install it with: pip install tensorboard.") from None


def check_batch(crops: Items, batch: int) -> None:
    """Refuse a batch that is never full.

    Raises:
        InputError: so it is.
    """
    if len(crops) < batch:
        raise InputError(f"{len(crops)} images do not fill a batch of {batch}; give a smaller batch.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's lines about hardware and its hints."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            hints = "many workers|Checkpoint directory|number of training|LeafSpec|in eval mode|trainer` r|no `val_data"
            warnings.filterwarnings("ignore", f".*({hints}).*")
            yield
    finally:
        logger.setLevel(level)
