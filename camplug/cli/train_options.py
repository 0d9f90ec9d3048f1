"""The options that all of `camplug train` take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from camplug.cli import common, crf_options
from camplug.cli.numbers import NUMBERS
from camplug.cli.seeds import NUMBER

OPTIONS: dict[str, Any] = {
    "seeds": str,
    "labels": str,
    "data": str,
    "split": str,
    "out": str,
    "model": str,
    "checkpoint": str,
    "num_classes": int,
    "layers": str,
    "mean": NUMBERS,
    "std": NUMBERS,
    "epochs": int,
    "batch": int,
    "crop": int,
    "scales": NUMBERS,
    "long_side": int,
    "optimizer": str,
    "lr": NUMBER,
    "momentum": NUMBER,
    "power": NUMBER,
    "warmup": NUMBER,
    "weight_decay": NUMBER,
    "radius": int,
    "width": int,
    "seed": int,
    "workers": int,
    "amp": bool,
    "allow_missing": bool,
    "device": str,
} | crf_options.OPTIONS
OF_IRN: dict[str, Any] = {"foreground": (str, *NUMBER), "background": (str, *NUMBER)}
OF_AFFINITYNET: dict[str, Any] = {"low": NUMBER, "high": NUMBER}
DEFAULTS: dict[str, Any] = {
    "model": "demo",
    "layers": "stages",
    "workers": 0,
    "amp": True,
    "allow_missing": False,
    "overwrite": False,
}

Seeds: TypeAlias = Annotated[
    Path | None, typer.Argument(help="Folder of seeds, made by `camplug seeds`.", show_default=False)
]
Labels: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder of ready-made label PNGs (255 is ignored), instead of seeds.")
]
Out: TypeAlias = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder of this training.", show_default="runs/irn or runs/affinitynet"),
]
Model: TypeAlias = Annotated[
    str | None, typer.Option("--model", "-m", help="As for `camplug explain`.", show_default="demo")
]
Layers: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Of the model, that the heads read: stages, or names separated by commas.", show_default="stages"
    ),
]
Crf: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Dense CRF of the labels: irn, affinitynet, deeplab or none.", show_default="the paper's"),
]
Epochs: TypeAlias = Annotated[
    int | None, typer.Option(help="How often through all images.", show_default="3 for irn, 8 for affinitynet")
]
Batch: TypeAlias = Annotated[
    int | None, typer.Option(help="Images per step.", show_default="32 for irn, 8 for affinitynet")
]
CropSide: TypeAlias = Annotated[
    int | None, typer.Option(help="Side of the crops in pixels.", show_default="512 for irn, 448 for affinitynet")
]
Scales: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Smallest and largest factor of the photograph's size.",
        show_default="0.5,1.5 for irn, 1,1 for affinitynet",
    ),
]
LongSide: TypeAlias = Annotated[
    int | None, typer.Option(help="Photographs are first brought to this longer side.", show_default="their own size")
]
Optimizer: TypeAlias = Annotated[str | None, typer.Option(help="sgd or adamw.", show_default="sgd")]
Rate: TypeAlias = Annotated[
    float | None,
    typer.Option(
        help="Learning rate; with sgd ten times it for IRN's displacements.", show_default="0.1 for irn, 1 otherwise"
    ),
]
Momentum: TypeAlias = Annotated[
    float | None, typer.Option(help="Of SGD; the published codes have none.", show_default="0")
]
Power: TypeAlias = Annotated[
    float | None, typer.Option(help="Of the learning rate's decay, (1 - step/steps)^power.", show_default="0.9")
]
Warmup: TypeAlias = Annotated[
    float | None, typer.Option(help="Part of the steps in which the rate rises.", show_default="0")
]
Decay: TypeAlias = Annotated[
    float | None, typer.Option(help="Weight decay.", show_default="0.0001 for irn, 0.0005 for affinitynet")
]
Radius: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Pairs closer than this are compared, in positions.", show_default="10 for irn, 5 for affinitynet"
    ),
]
Seed: TypeAlias = Annotated[int | None, typer.Option(help="Of everything random.", show_default="0")]
Workers: TypeAlias = Annotated[int | None, typer.Option(help="Processes that load images.", show_default="0")]


class TrainOptions:
    """What every training takes."""

    seeds: Seeds = None
    labels: Labels = None
    data: common.Data = None
    split: common.Split = None
    out: Out = None
    model: Model = None
    checkpoint: common.Checkpoint = None
    num_classes: common.NumClasses = None
    layers: Layers = None
    mean: common.Mean = None
    std: common.Std = None
    crf: Crf = None
    crf_gaussian: crf_options.Gaussian = None
    crf_bilateral: crf_options.Bilateral = None
    crf_iterations: crf_options.Iterations = None
    epochs: Epochs = None
    batch: Batch = None
    crop: CropSide = None
    scales: Scales = None
    long_side: LongSide = None
    optimizer: Optimizer = None
    lr: Rate = None
    momentum: Momentum = None
    power: Power = None
    warmup: Warmup = None
    weight_decay: Decay = None
    radius: Radius = None
    seed: Seed = None
    workers: Workers = None
    amp: common.Amp = None
    allow_missing: common.AllowMissing = None
    overwrite: common.Overwrite = False
    device: common.BestDevice = None
    config: common.Config = None
    as_json: common.AsJson = False
