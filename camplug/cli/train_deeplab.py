"""`camplug train deeplab`: a segmentation network from label pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from camplug.cli import common
from camplug.cli.config import read_config
from camplug.cli.fields import allowed, changed, option_group
from camplug.cli.numbers import NUMBERS
from camplug.cli.options import takes
from camplug.cli.shown import Shown, stoppable
from camplug.cli.train_classifier import Log, check, network_of, tell_training
from camplug.cli.walk import need_lightning
from camplug.errors import InputError
from camplug.wsss.deeplab.settings import DeepLabNetworkSettings, make_default_schedule
from camplug.wsss.store.jobs import share
from camplug.wsss.train.schedule import ScheduleSettings

OPTIONS: dict[str, Any] = {
    "labels": str,
    "data": str,
    "split": str,
    "out": str,
    "model": str,
    "checkpoint": str,
    "num_classes": int,
    "mean": NUMBERS,
    "std": NUMBERS,
    "saliency": str,
    "amp": bool,
    "allow_missing": bool,
    "log": str,
    "workers": int,
    "device": str,
}
DEFAULTS: dict[str, Any] = {
    "out": "runs/deeplab",
    "model": "demo",
    "workers": 0,
    "amp": True,
    "allow_missing": False,
    "log": "csv",
}
_USUAL = make_default_schedule()


@dataclass(frozen=True)
class _Span:
    """How long, and on which crops, with the defaults of `DeepLabSettings`, which is imported when it is needed.

    Args:
        epochs: how often through all images.
        batch: images per batch.
        accumulate: batches per step of the optimizer.
        crop: side of the crops in pixels, best a multiple of 32.
        scales: smallest and largest factor of the photograph's size.
        long_side: photographs are first brought to this longer side.
        seed: of everything random.
    """

    epochs: int = 20
    batch: int = 10
    accumulate: int = 1
    crop: int = 320
    scales: tuple[float, float] = (0.5, 1.5)
    long_side: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class _Schedule(ScheduleSettings):
    lr: float = _USUAL.lr
    momentum: float = _USUAL.momentum
    weight_decay: float = _USUAL.weight_decay


_Schedule.__doc__ = ScheduleSettings.__doc__
SETTINGS = (_Span, DeepLabNetworkSettings, _Schedule)


class DeepLabOptions:
    """What the command takes beside settings."""

    data: common.Data = None
    split: common.Split = None
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of this training.", show_default="runs/deeplab")
    ] = None
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="As for `camplug explain`, or a classifier.pt.", show_default="demo"),
    ] = None
    checkpoint: common.Checkpoint = None
    num_classes: common.NumClasses = None
    mean: common.Mean = None
    std: common.Std = None
    saliency: Annotated[
        str | None,
        typer.Option(
            help="For --refinement: folder of grey pictures, or contrast or spectral, which need none.",
            show_default="none",
        ),
    ] = None
    amp: common.Amp = None
    allow_missing: common.AllowMissing = None
    overwrite: common.Overwrite = False
    log: Log = None
    workers: Annotated[int | None, typer.Option(help="Processes that load images.", show_default="0")] = None
    device: common.BestDevice = None
    config: common.Config = None
    as_json: common.AsJson = False


def register(app: typer.Typer) -> None:
    """Add the command to `camplug train`."""
    app.command("deeplab")(takes(DeepLabOptions, option_group(*SETTINGS))(deeplab))


def deeplab(
    labels: Annotated[
        Path | None,
        typer.Argument(help="Folder of label pictures, made by `camplug pseudo-labels`.", show_default=False),
    ] = None,
    **given: Any,
) -> None:
    """Train DeepLab, a segmentation network, on label pictures; writes OUT/deeplab.pt for `camplug segment`.

    Stopped at any moment, the same command goes on after the last full epoch.
    Under torchrun the processes share every batch: torchrun --nproc-per-node 2 -m camplug train deeplab ...
    Images without a label picture are left out and listed, exit code 1.
    """
    given["labels"] = labels
    with stoppable(), common.plain_errors():
        need_lightning()
        options = OPTIONS | allowed(*SETTINGS)
        chosen = DEFAULTS | read_config(given["config"], options)
        chosen |= {k: v for k, v in given.items() if k in options and v is not None}
        chosen["overwrite"] = given["overwrite"]
        if chosen.get("labels") is None:
            raise InputError("the folder of labels is missing; write for instance: camplug train deeplab labels ...")
        check(chosen)
        done = _train(chosen, given["as_json"])
        tell_training(done, chosen["out"], given["as_json"])


def _train(chosen: dict[str, Any], as_json: bool) -> Any:
    from camplug.cli.evaluate import check_classes
    from camplug.wsss.classifier.checkpoint import read_made_with
    from camplug.wsss.data import open_images
    from camplug.wsss.deeplab import DeepLabSettings, train_deeplab
    from camplug.wsss.pseudo import LabelFolder
    from camplug.wsss.store.settings_folder import SETTINGS as TOLD

    settings = changed(DeepLabSettings(), chosen)
    labels = Path(str(chosen["labels"]))
    told = LabelFolder(labels).read_settings() if (labels / TOLD).exists() else {}
    data = open_images(str(chosen["data"]), chosen.get("split"), told.get("classes", ()))
    check_classes(told, data.classes, "labels")
    model, reads = network_of(chosen, settings.training.seed)
    return train_deeplab(
        model,
        data,
        labels,
        Path(str(chosen["out"])),
        settings,
        saliency=chosen.get("saliency"),
        preprocess=reads,
        workers=chosen["workers"],
        amp=chosen["amp"],
        allow_missing=chosen["allow_missing"],
        overwrite=chosen["overwrite"],
        log=chosen["log"],
        made_with=read_made_with(str(chosen["model"]), chosen.get("num_classes")),
        watch=Shown(as_json or share()[0] > 0),
    )
