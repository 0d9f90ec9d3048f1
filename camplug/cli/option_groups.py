"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from camplug.cli import common
from camplug.cli.common import Colour
from camplug.cli.explanations import make_explainer_options
from camplug.errors import InputError
from camplug.images.preprocess import repeat_channel
from camplug.wsss.store.processes import get_shard
from camplug.wsss.train.options import TrainDtype

if TYPE_CHECKING:
    from torch import nn

    from camplug.images.preprocess import Preprocess


@dataclass(frozen=True)
class DataOptions:
    """Images that a command works on."""

    data: Annotated[
        str | None,
        typer.Option(
            help="voc:PATH, coco:PATH, folder:PATH, scenes:COUNT, or a path; options follow as in "
            "'voc:PATH?masks=SegmentationClassAug&classes=names.txt'.",
            show_default="must be given",
        ),
    ] = None
    split: common.Split = None

    def get_data(self) -> str:
        """Return the name of the data set.

        Raises:
            InputError: it is not given.
        """
        if self.data is None:
            raise InputError("--data is missing; for instance --data voc:VOCdevkit/VOC2012 --split train.")
        return self.data


@dataclass(frozen=True)
class NetworkOptions:
    """Network that a command loads.

    Raises:
        InputError: less than one class.
    """

    model: Annotated[str, typer.Option("--model", "-m", help="As for `camplug explain`, or a classifier.pt.")] = "demo"
    checkpoint: common.Checkpoint = None
    num_classes: common.NumClasses = None
    mean: Annotated[Colour | None, typer.Option(help=common.MEAN_HELP)] = None
    std: Annotated[Colour | None, typer.Option(help=common.STD_HELP)] = None
    device: common.BestDevice = None

    def __post_init__(self) -> None:
        common.check_num_classes(self.num_classes)

    def load(self, seed: int = 0, prompts: common.PromptOptions | None = None) -> nn.Module:
        """Load the network on this process's device; weights that begin at random depend on the seed alone."""
        device = common.choose_device(self.device, get_shard()[0])
        return common.load_network(self.model, self.checkpoint, self.num_classes, device, seed, prompts=prompts)

    def find_preprocess(self, network: nn.Module) -> Preprocess | None:
        """Return how the network reads photographs of any size, where `mean` or `std` is given."""
        options = make_explainer_options(network, None, self.mean, self.std)
        return replace(options["preprocess"], long_side=None) if options else None

    @property
    def colours(self) -> dict[str, Any]:
        """Given normalisation, stored with results."""
        given = {"mean": self.mean, "std": self.std}
        return {name: None if colour is None else repeat_channel(colour) for name, colour in given.items()}

    @property
    def origin(self) -> dict[str, Any]:
        """Options that load the network again, stored with what is trained on it."""
        checkpoint = None if self.checkpoint is None else str(self.checkpoint.resolve())
        return {"model": self.model, "checkpoint": checkpoint, "num_classes": self.num_classes}


@dataclass(frozen=True)
class TrainingOptions:
    """Folder, processes, precision and log of a training.

    Raises:
        InputError: a negative number of workers.
    """

    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of this training.")]
    workers: Annotated[int, typer.Option(help="Processes that load images.")] = 0
    dtype: Annotated[
        TrainDtype,
        typer.Option(
            help="auto: mixed precision on CUDA, float32 elsewhere. bfloat16: on a CPU, too, faster where it has "
            "instructions for it (avx512_bf16, amx)."
        ),
    ] = "auto"
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing/--refuse-missing",
            help="Train although more than 5 % of the photographs (or their image labels) cannot be read.",
            show_default="refuse",
        ),
    ] = False
    overwrite: common.Overwrite = False
    log: Annotated[Literal["csv", "tensorboard"], typer.Option(help="csv or tensorboard.")] = "csv"

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise InputError(f"--workers {self.workers}; give 0 or more.")

    @property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments that all trainings take."""
        return {name: value for name, value in vars(self).items() if name != "out"}
