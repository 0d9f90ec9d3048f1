"""Training of a Lightning module with checkpoints after every epoch and resuming."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch.utils.data import DataLoader
from typing_extensions import Unpack

from camplug.errors import InputError
from camplug.wsss.store.processes import get_shard
from camplug.wsss.train.checkpoints import BEST, find_checkpoint
from camplug.wsss.train.crops import ShuffledSampler
from camplug.wsss.train.options import FIT_DEFAULTS, FitOptions, TrainDtype, complete_options

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class Items(Protocol):
    """Reproducible training items, indexed by (epoch, number)."""

    seed: int

    def __len__(self) -> int: ...

    def __getitem__(self, which: tuple[int, int]) -> Any: ...


def fit(
    module: LightningModule, items: Items, out: Path, *, epochs: int, batch: int, **options: Unpack[FitOptions]
) -> dict[str, float]:
    """Train a module, with a checkpoint in `out` after every epoch and a log of the losses for each run.

    After an interruption, the same call resumes after the last full epoch and gives the same weights as an
    uninterrupted run (on one device). The last images of an epoch that do not fill a batch are left out. Under
    torchrun, every process trains on its share of each batch.

    Args:
        module: module to train.
        items: training items.
        out: folder for checkpoints and logs.
        epochs: passes over all items.
        batch: items per step.
        options: see `FitOptions`.

    Returns:
        Metrics logged last; empty where all epochs were finished already.

    Raises:
        InputError: fewer items than one batch, or a batch that processes cannot share evenly; the folder cannot be
            made; the checkpoints belong to another training or are all damaged; tensorboard is not installed.
        KeyboardInterrupt: stopped by Ctrl-C.
        ModelError: the loss became NaN or infinite.
        TypeError: an option is unknown.
    """
    chosen: FitOptions = complete_options(options, FIT_DEFAULTS)
    best, device = chosen["best"], Device.parse(chosen["device"])
    loaders = _make_loaders(items, batch, device, chosen)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(out)!r} cannot be made ({error.strerror}).") from None
    with _silence_lightning():
        callbacks = _make_callbacks(items, out, chosen)
        steps = max(1, min(10, len(items) // batch))
        trainer = _make_trainer(out, device, callbacks, chosen, max_epochs=epochs, log_every_n_steps=steps)
        _run(trainer, module, *loaders, find_checkpoint(out, module))
    if best is not None and (out / BEST).exists():
        module.load_state_dict(torch.load(out / BEST, map_location="cpu", weights_only=True)["state_dict"])
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


class Device(NamedTuple):
    """Device of a training: accelerator of Lightning and number."""

    accelerator: str
    number: str

    @classmethod
    def parse(cls, name: str) -> Device:
        """Split a name such as "cuda:1"."""
        accelerator, _, number = name.partition(":")
        return cls(accelerator, number)

    @property
    def is_cuda(self) -> bool:
        """True for a CUDA device."""
        return self.accelerator in ("cuda", "gpu") or (self.accelerator == "auto" and torch.cuda.is_available())


def _make_loaders(
    items: Items, batch: int, device: Device, options: FitOptions
) -> tuple[DataLoader[Any], DataLoader[Any] | None]:
    """Make the loaders of a process's share of the training and validation items.

    Raises:
        InputError: fewer items than one batch, or a batch that processes cannot share evenly.
    """
    whole = batch * options["accumulate"]
    check_batch(items, whole)
    rank, world = get_shard()
    sampler = ShuffledSampler(len(items), items.seed, batch=batch, share=(rank, world))
    sampler.batch = whole  # no optimizer step with fewer batches at the end of an epoch
    # pinned memory lets the next batch be copied during a step
    shared: dict[str, Any] = {"num_workers": options["workers"], "pin_memory": device.is_cuda}
    loader: DataLoader[Any] = DataLoader(
        items,  # type: ignore[arg-type]
        batch_size=batch // world,
        sampler=sampler,
        persistent_workers=options["workers"] > 0,
        **shared,
    )
    validation = options["validation"]
    if validation is None:
        return loader, None
    held_out: DataLoader[Any] = DataLoader(
        validation,  # type: ignore[arg-type]
        batch_size=batch,
        sampler=[(0, i) for i in range(rank, len(validation), world)],
        collate_fn=getattr(validation, "collate", None),  # drops unreadable items
        **shared,
    )
    return loader, held_out


def _make_trainer(out: Path, device: Device, callbacks: list[Any], options: FitOptions, **steps: Any) -> Trainer:
    """Make the trainer of this process."""
    from lightning.pytorch import Trainer

    from camplug.wsss.train.progress_bar import TrainingProgressBar

    # every step of the bar waits for a GPU
    bars = [TrainingProgressBar(refresh_rate=10 if device.is_cuda else 1)] if options["progress"] else []
    return Trainer(
        accelerator=device.accelerator,
        callbacks=[*callbacks, *bars, *options["callbacks"]],
        logger=_make_logger(options["log"], out),
        enable_progress_bar=options["progress"],
        enable_model_summary=False,
        num_sanity_val_steps=0,
        precision=choose_precision(device, options["dtype"]),
        use_distributed_sampler=False,
        accumulate_grad_batches=options["accumulate"],
        plugins=[_choose_environment()],
        **_choose_devices(device, get_shard()[1]),
        **steps,
    )


def _make_callbacks(items: Items, out: Path, options: FitOptions) -> list[Any]:
    """Make the callbacks of every training: checkpoints, checks and reports of steps."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    from camplug.wsss.train.callbacks import HeaderCallback, LossCheck, ReadingCheck, StepReport

    best, watch = options["best"], options["watch"]
    make_saver = partial(ModelCheckpoint, dirpath=out, enable_version_counter=False)
    savers = [make_saver(filename="{epoch}", save_last=True, save_top_k=1)]
    if best is not None:
        savers.append(make_saver(filename=BEST.removesuffix(".ckpt"), monitor=best, mode="max"))
    substitutes = getattr(items, "substitutes", None)
    checks = [] if substitutes is None else [ReadingCheck(substitutes)]
    reports = [] if watch is None else [StepReport(watch)]
    return [*savers, LossCheck(), HeaderCallback(options["header"]), *checks, *reports]


def _run(
    trainer: Trainer,
    module: LightningModule,
    loader: DataLoader[Any],
    validation: DataLoader[Any] | None,
    checkpoint: Path | None,
) -> None:
    """Run a training; raise KeyboardInterrupt after Ctrl-C, with its handler restored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, loader, validation, ckpt_path=checkpoint)
    except SystemExit:  # raised by Lightning after Ctrl-C, with SIGINT ignored
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
    if trainer.interrupted:
        raise KeyboardInterrupt


def choose_precision(device: Device, dtype: TrainDtype) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Return Lightning's precision for a dtype; "auto" prefers bfloat16 on CUDA, which needs no loss scaling.

    Raises:
        InputError: an unknown dtype, or float16 on a device other than CUDA.
    """
    if dtype not in get_args(TrainDtype):
        raise InputError(f"dtype={dtype!r}; allowed are {', '.join(get_args(TrainDtype))}.")
    if dtype == "float16" and not device.is_cuda:
        raise InputError("dtype='float16' trains on CUDA alone; give bfloat16, float32 or auto.")
    if dtype == "float32" or (dtype == "auto" and not device.is_cuda):
        return "32-true"
    if dtype == "auto":
        with torch.cuda.device(int(device.number) if device.number else None):
            dtype = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bf16-mixed" if dtype == "bfloat16" else "16-mixed"


def _choose_devices(device: Device, world: int) -> dict[str, Any]:
    """Return the Trainer options for one device, or for one per process under torchrun."""
    if world > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
        return {"devices": here, "num_nodes": world // here, "strategy": "ddp"}
    return {"devices": [int(device.number)] if device.number and device.accelerator == "cuda" else 1}


def _choose_environment() -> Any:
    """Return the cluster environment: torchrun or none, ignoring the variables of schedulers."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()


def _make_logger(log: str, out: Path) -> Any:
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
    """Check that there are enough items for a batch.

    Raises:
        InputError: there are fewer.
    """
    if len(crops) < batch:
        raise InputError(f"{len(crops)} images do not fill a batch of {batch}; give a smaller batch.")


@contextmanager
def _silence_lightning() -> Iterator[None]:
    """Suppress Lightning's messages about hardware and its hints."""
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
