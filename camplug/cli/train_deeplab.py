"""Command `camplug train deeplab`: a segmentation network from label pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from camplug.cli import common
from camplug.cli.evaluate import check_classes
from camplug.cli.option_groups import DataOptions, NetworkOptions, TrainingOptions
from camplug.cli.train_command import add_command, make_display, show_training
from camplug.errors import InputError
from camplug.settings import apply_values
from camplug.wsss.deeplab.settings import DeepLabSettings


@dataclass(frozen=True)
class DeepLabOptions:
    """Label pictures, corrected ones, saliency, and validation."""

    labels: Annotated[
        Path | None,
        typer.Argument(help="Folder of label pictures, made by `camplug pseudo-labels`.", show_default=False),
    ] = None
    saliency: Annotated[
        str | None,
        typer.Option(
            help="For --refinement: folder of grey pictures, file of a saliency network (TorchScript, torch.export, "
            "ONNX or deeplab.pt; options: net.onnx?side=320&output=logits), or contrast or spectral, which need none.",
            show_default="none",
        ),
    ] = None

    corrected: Annotated[
        Path | None,
        typer.Option(
            help="Folder of corrected label pictures, made by `camplug import-labels`, in place of those of their "
            "images."
        ),
    ] = None
    corrected_repeat: Annotated[int, typer.Option(help="Draws of a corrected image per epoch; others have one.")] = 4
    validation: Annotated[
        str | None,
        typer.Option(help="Data set whose masks give the mIoU of one view after every epoch.", show_default="none"),
    ] = None
    validation_split: common.ValidationSplit = None

    def get_labels(self) -> Path:
        """Return the folder of label pictures.

        Raises:
            InputError: it is not given.
        """
        if self.labels is None:
            raise InputError("the folder of labels is missing; write for instance: camplug train deeplab labels ...")
        return self.labels


TRAINING = TrainingOptions(out=Path("runs/deeplab"))
GROUPS = DataOptions(), DeepLabOptions(), TRAINING, NetworkOptions(), DeepLabSettings()


def register(app: typer.Typer) -> None:
    """Add the command to `camplug train`."""
    text = (
        "Train DeepLab, a segmentation network, on label pictures; writes OUT/deeplab.pt for `camplug segment`.\n\n"
        "If it is stopped, the same command continues after the last full epoch.\n"
        "Under torchrun the processes share every batch: torchrun --nproc-per-node 2 -m camplug train deeplab ...\n"
        "Images without a label picture are left out and listed, exit code 1."
    )
    add_command(app, "deeplab", text, GROUPS, _train)


def _train(values: dict[str, Any], as_json: bool) -> None:
    from camplug.wsss.classifier.checkpoint import read_made_with
    from camplug.wsss.data import open_data, open_images
    from camplug.wsss.deeplab.train import train_deeplab
    from camplug.wsss.pseudo import LabelFolder
    from camplug.wsss.store.settings_folder import SETTINGS

    options, images = apply_values(DeepLabOptions(), values), apply_values(DataOptions(), values)
    training, network = apply_values(TRAINING, values), apply_values(NetworkOptions(), values)
    labels, name = options.get_labels(), images.get_data()
    settings = apply_values(DeepLabSettings(), values)
    stored = LabelFolder(labels).read_settings() if (labels / SETTINGS).exists() else {}
    data = open_images(name, images.split, stored.get("classes", ()))
    check_classes(stored, data.classes, "labels")
    validation = None if options.validation is None else open_data(options.validation, options.validation_split)
    model = network.load(settings.training.seed)
    done = train_deeplab(
        model,
        data,
        labels,
        training.out,
        settings,
        saliency=options.saliency,
        corrected=options.corrected,
        corrected_repeat=options.corrected_repeat,
        validation=validation,
        preprocess=network.find_preprocess(model),
        **training.keywords,
        made_with=read_made_with(network.model, network.num_classes),
        watch=make_display(as_json),
    )
    show_training(done, training.out, as_json)
