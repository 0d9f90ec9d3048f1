"""`camplug train classifier|atm|rpnet|fpr`: classifiers from image-level labels, by four methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from camplug.cli import common
from camplug.cli.config import read_config
from camplug.cli.fields import allowed, changed, option_group
from camplug.cli.numbers import NUMBERS
from camplug.cli.options import takes
from camplug.cli.seeds import device_of
from camplug.cli.shown import Shown, stoppable
from camplug.cli.walk import need_lightning
from camplug.errors import InputError
from camplug.wsss.atm.method import ATM
from camplug.wsss.classifier.method import Method
from camplug.wsss.classifier.settings import LearningSettings, SpanSettings, get_preset
from camplug.wsss.fpr.method import FPR
from camplug.wsss.rpnet.method import RPNet
from camplug.wsss.store.jobs import share
from camplug.wsss.train.schedule import ScheduleSettings

if TYPE_CHECKING:
    from torch import nn

    from camplug.explain.preprocess import Preprocess

Validation: TypeAlias = Annotated[
    str | None, typer.Option(help="Data set whose labels tell the precision after every epoch.", show_default="none")
]
ValidationSplit: TypeAlias = Annotated[str | None, typer.Option(help="Its part, as for --split.", show_default="train")]
Keep: TypeAlias = Annotated[
    str | None,
    typer.Option(help="last, or best: the epoch of the best precision on --validation.", show_default="last"),
]
Preset: TypeAlias = Annotated[
    str | None, typer.Option(help="irn or modern: all options at once; others change it.", show_default="irn")
]
Head: TypeAlias = Annotated[
    str | None,
    typer.Option(help="keep or new: the model's trained head.", show_default="keep where it has the data's classes"),
]
Stride: TypeAlias = Annotated[
    int | None, typer.Option(help="Pixels per position of the maps, by dilation.", show_default="as built")
]
Log: TypeAlias = Annotated[str | None, typer.Option(help="csv or tensorboard.", show_default="csv")]

OPTIONS: dict[str, Any] = {
    "data": str,
    "split": str,
    "validation": str,
    "validation_split": str,
    "keep": str,
    "out": str,
    "model": str,
    "checkpoint": str,
    "num_classes": int,
    "mean": NUMBERS,
    "std": NUMBERS,
    "preset": str,
    "head": str,
    "output_stride": int,
    "amp": bool,
    "allow_missing": bool,
    "log": str,
    "workers": int,
    "device": str,
}
DEFAULTS: dict[str, Any] = {
    "model": "demo",
    "preset": "irn",
    "workers": 0,
    "keep": "last",
    "amp": True,
    "allow_missing": False,
    "log": "csv",
}


class ClassifierOptions:
    """What every training of a classifier takes."""

    data: common.Data = None
    split: common.Split = None
    validation: Validation = None
    validation_split: ValidationSplit = None
    keep: Keep = None
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of this training.", show_default="runs/METHOD")
    ] = None
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="As for `camplug explain`, or a classifier.pt.", show_default="demo"),
    ] = None
    checkpoint: common.Checkpoint = None
    num_classes: common.NumClasses = None
    mean: common.Mean = None
    std: common.Std = None
    preset: Preset = None
    head: Head = None
    output_stride: Stride = None
    amp: common.Amp = None
    allow_missing: common.AllowMissing = None
    overwrite: common.Overwrite = False
    log: Log = None
    workers: Annotated[int | None, typer.Option(help="Processes that load images.", show_default="0")] = None
    device: common.BestDevice = None
    config: common.Config = None
    as_json: common.AsJson = False


LEARNING = (SpanSettings, LearningSettings, ScheduleSettings)


def register(app: typer.Typer) -> None:
    """Add the four commands to `camplug train`."""
    for method in (Method, ATM, RPNet, FPR):
        app.command(method.name)(takes(ClassifierOptions, option_group(*LEARNING, method))(_command(method)))


def _command(method: type[Method]) -> Callable[..., None]:
    def train(**given: Any) -> None:
        with stoppable(), common.plain_errors():
            _train(method, given)

    train.__doc__ = (
        f"{(method.__doc__ or '').strip().splitlines()[0]}\n\nWrites OUT/classifier.pt, which every command takes as "
        "--model.\nStopped at any moment, the same command goes on after the last full epoch.\nPhotographs and "
        "annotations that cannot be read are left out and listed, exit code 1.\nUnder torchrun the "
        "processes share every batch: torchrun --nproc-per-node 2 -m camplug train ..."
    )
    return train


def _train(kind: type[Method], given: dict[str, Any]) -> None:
    need_lightning()
    options = OPTIONS | allowed(*LEARNING, kind)
    chosen = DEFAULTS | {"out": f"runs/{kind.name}"} | read_config(given["config"], options)
    chosen |= {k: v for k, v in given.items() if k in options and v is not None}
    chosen["overwrite"] = given["overwrite"]
    learning, span = get_preset(str(chosen["preset"]))
    method, learning, span = changed(kind(), chosen), changed(learning, chosen), changed(span, chosen)
    check(chosen)
    if chosen.get("head") not in (None, "keep", "new"):
        raise InputError(f"--head {chosen['head']}; allowed are keep and new.")
    from camplug.wsss.classifier.checkpoint import read_made_with
    from camplug.wsss.classifier.train import train_classifier
    from camplug.wsss.data import open_data

    data = open_data(str(chosen["data"]), chosen.get("split"))
    validation = None
    if chosen.get("validation") is not None:
        validation = open_data(str(chosen["validation"]), chosen.get("validation_split"))
    rank, _ = share()
    model, reads = network_of(chosen, span.seed)
    head = chosen.get("head")
    done = train_classifier(
        model,
        data,
        Path(str(chosen["out"])),
        method=method,
        learning=learning,
        span=span,
        validation=validation,
        keep=chosen["keep"],
        output_stride=chosen.get("output_stride"),
        keep_head=None if head is None else head == "keep",
        preprocess=reads,
        workers=chosen["workers"],
        amp=chosen["amp"],
        allow_missing=chosen["allow_missing"],
        overwrite=chosen["overwrite"],
        log=chosen["log"],
        made_with=read_made_with(str(chosen["model"]), chosen.get("num_classes")),
        watch=Shown(given["as_json"] or rank > 0),
    )
    tell_training(done, chosen["out"], given["as_json"])


def tell_training(done: Any, out: Any, as_json: bool) -> None:
    """Print what a training brought and what it left out; exit code 1 where that is something.

    Raises:
        typer.Exit: so it is.
    """
    if share()[0]:  # the first process tells for all
        return
    if as_json:
        common.print_json(
            {
                "folder": str(out),
                "file": str(done.file),
                "images": done.images,
                "losses": done.losses,
                "broken": [{"image": name, "error": error} for name, error in done.broken],
            }
        )
    common.show_broken(done.broken)
    if done.broken:
        raise typer.Exit(1)


def check(chosen: dict[str, Any]) -> None:
    """Refuse what every training on a data set can refuse before anything is loaded.

    Raises:
        InputError: no data; a number out of its range.
    """
    if chosen.get("data") is None:
        raise InputError("--data is missing; for instance --data voc:VOCdevkit/VOC2012 --split train_aug.")
    if chosen["workers"] < 0:
        raise InputError(f"--workers {chosen['workers']}; give 0 or more.")
    if chosen.get("num_classes") is not None and chosen["num_classes"] < 1:
        raise InputError(f"num_classes = {chosen['num_classes']}; give at least 1.")


def network_of(chosen: dict[str, Any], seed: int) -> tuple[nn.Module, Preprocess | None]:
    """The network to begin with, on this process's device, and how it reads photographs, where that was said."""
    weights = None if chosen.get("checkpoint") is None else Path(str(chosen["checkpoint"]))
    device = device_of(chosen.get("device"), share()[0])
    model = common.load(str(chosen["model"]), weights, chosen.get("num_classes"), device, seed)
    reads = common.explainer_options(model, None, chosen.get("mean"), chosen.get("std")).get("preprocess")
    return model, None if reads is None else replace(reads, long_side=None)
