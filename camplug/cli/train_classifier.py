"""Commands `camplug train classifier|atm|rpnet|fpr`, and one for every training method of your own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup
from typing_extensions import override

from camplug.cli import common
from camplug.cli.option_groups import DataOptions, NetworkOptions, TrainingOptions
from camplug.cli.train_command import add_command, make_display, show_training
from camplug.plugins import PREFIX
from camplug.settings import apply_values
from camplug.wsss.atm.method import ATM
from camplug.wsss.classifier.method import Method, get_training, list_trainings
from camplug.wsss.classifier.settings import get_preset
from camplug.wsss.fpr.method import FPR
from camplug.wsss.rpnet.method import RPNet


@dataclass(frozen=True)
class ClassifierOptions:
    """Validation, preset and head of a classifier."""

    validation: Annotated[
        str | None,
        typer.Option(
            help="Data set whose labels give the mean average precision after every epoch.", show_default="none"
        ),
    ] = None
    validation_split: common.ValidationSplit = None
    keep: Annotated[
        Literal["last", "best"],
        typer.Option(
            help="last: weights of the last epoch; best: of the epoch with the best mean average precision on "
            "--validation."
        ),
    ] = "last"
    preset: Annotated[
        str,
        typer.Option(
            help="Defaults of all options of the training; irn, shown here: SGD for ResNets, as by IRN's authors; "
            "modern: AdamW, for other networks."
        ),
    ] = "irn"
    head: Annotated[
        Literal["keep", "new"] | None,
        typer.Option(
            help="keep or new: the model's trained head.", show_default="keep where it has the data's classes"
        ),
    ] = None
    output_stride: Annotated[
        int | None, typer.Option(help="Pixels per position of the maps, by dilation.", show_default="as built")
    ] = None


METHODS = (Method, ATM, RPNet, FPR)


class TrainingCommands(TyperGroup):
    """Commands of `camplug train`, with those of registered methods and of "import:PACKAGE.MODULE:NAME"."""

    @override
    def list_commands(self, ctx: Any) -> list[str]:
        listed = super().list_commands(ctx)
        return [*listed, *(name for name in list_trainings() if name not in listed)]

    @override
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            return found
        with common.report_errors():
            if not cmd_name.startswith(PREFIX) and cmd_name not in list_trainings():
                return None
            app = typer.Typer()
            _register(app, get_training(cmd_name))
            return typer.main.get_command(app)


def register(app: typer.Typer) -> None:
    """Add the commands of camplug's own methods to `camplug train`."""
    for method in METHODS:
        _register(app, method)


def _register(app: typer.Typer, method: type[Method]) -> None:
    learning, span = get_preset(ClassifierOptions().preset)
    training = TrainingOptions(out=Path("runs") / method.name)
    groups = DataOptions(), ClassifierOptions(), training, NetworkOptions(), span, learning, method()

    def train(values: dict[str, Any], as_json: bool) -> None:
        _train(apply_values(method(), values), values, apply_values(training, values), as_json)

    text = (
        f"{(method.__doc__ or '').strip().splitlines()[0]}\n\nWrites OUT/classifier.pt, which every command takes as "
        "--model.\nIf it is stopped, the same command continues after the last full epoch.\nPhotographs and "
        "annotations that cannot be read are left out and listed, exit code 1.\nUnder torchrun the "
        "processes share every batch: torchrun --nproc-per-node 2 -m camplug train ..."
    )
    add_command(app, method.name, text, groups, train)


def _train(method: Method, values: dict[str, Any], training: TrainingOptions, as_json: bool) -> None:
    from camplug.wsss.classifier.checkpoint import read_made_with
    from camplug.wsss.classifier.train import train_classifier
    from camplug.wsss.data import open_data

    options = apply_values(ClassifierOptions(), values)
    learning, span = get_preset(options.preset)
    learning, span = apply_values(learning, values), apply_values(span, values)
    images, network = apply_values(DataOptions(), values), apply_values(NetworkOptions(), values)
    data = open_data(images.get_data(), images.split)
    validation = None if options.validation is None else open_data(options.validation, options.validation_split)
    model = network.load(span.seed)
    done = train_classifier(
        model,
        data,
        training.out,
        method=method,
        learning=learning,
        span=span,
        validation=validation,
        keep=options.keep,
        output_stride=options.output_stride,
        keep_head=None if options.head is None else options.head == "keep",
        preprocess=network.find_preprocess(model),
        **training.keywords,
        made_with=read_made_with(network.model, network.num_classes),
        watch=make_display(as_json),
    )
    show_training(done, training.out, as_json)
