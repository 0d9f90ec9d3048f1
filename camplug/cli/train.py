"""Command `camplug train`; `irn` and `affinitynet`, the networks of random walks, from seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from camplug.cli import train_classifier, train_deeplab
from camplug.cli.crf_options import CRFNumbers, make_crf_settings
from camplug.cli.evaluate import check_classes
from camplug.cli.option_groups import DataOptions, NetworkOptions, TrainingOptions
from camplug.cli.pseudo_labels import open_seeds
from camplug.cli.train_command import add_command, make_display, show_training
from camplug.errors import InputError
from camplug.settings import apply_values
from camplug.wsss.affinitynet.settings import AffinityNetSettings
from camplug.wsss.irn.settings import IRNSettings

app = typer.Typer(
    name="train",
    cls=train_classifier.TrainingCommands,
    help="Train classifiers, the networks that refine seeds, and segmentation networks.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train_classifier.register(app)
train_deeplab.register(app)


@dataclass(frozen=True)
class LabelSource:
    """Seeds or label pictures that heads learn from."""

    seeds: Annotated[
        Path | None, typer.Argument(help="Folder of seeds, made by `camplug seeds`.", show_default=False)
    ] = None
    labels: Annotated[
        Path | None, typer.Option(help="Folder of ready-made label PNGs (255 is ignored), instead of seeds.")
    ] = None

    def check(self) -> None:
        """Raise `InputError` unless one of the two is given."""
        if (self.seeds is None) == (self.labels is None):
            raise InputError("give either a folder of seeds or, with --labels, one of label pictures.")


@dataclass(frozen=True)
class LayerOptions:
    """Layers that the heads read."""

    layers: Annotated[
        tuple[str, ...],
        typer.Option(help='Layers whose features feed the heads: "stages", or names separated by commas.'),
    ] = ("stages",)


def _register(name: str, title: str, settings: Any, label_fields: tuple[str, ...]) -> None:
    """Add the training of heads to the commands.

    Args:
        name: name of the command and the walk.
        title: name of the network.
        settings: default settings.
        label_fields: fields of the settings that concern the labels made of seeds.
    """
    training = TrainingOptions(out=Path("runs") / name)
    groups = LabelSource(), DataOptions(), training, NetworkOptions(), LayerOptions(), settings, CRFNumbers()

    def train(values: dict[str, Any], as_json: bool) -> None:
        from camplug.wsss.recipe.walks import LEARNED_WALKS

        source = apply_values(LabelSource(), values)
        source.check()
        if source.labels is not None:
            _refuse_idle_options(values, label_fields)
        options = apply_values(training, values)
        run = partial(LEARNED_WALKS[name].train, watch=make_display(as_json))
        done = _train(run, _apply_crf(settings, values), values, options)
        counts = None if done.labels is None else {"made": done.labels.made, "found": done.labels.found}
        show_training(done, options.out, as_json, {"label_settings": done.label_settings, "labels": counts})

    text = (
        f"Train {title} on a classifier, from its seeds; writes OUT/{name}.pt.\n\n"
        "If it is stopped, the same command continues.\n"
        "Under torchrun the processes share labels and batches: torchrun --nproc-per-node 2 -m camplug train ...\n"
        "Images without a seed or label picture, and broken ones, are left out and listed, exit code 1."
    )
    add_command(app, name, text, groups, train)


_register("irn", "IRN's boundaries and displacements", IRNSettings(), ("foreground", "background"))
_register("affinitynet", "PSA's AffinityNet", AffinityNetSettings(), ("low", "high"))


def _refuse_idle_options(values: dict[str, Any], label_fields: tuple[str, ...]) -> None:
    for name in (*label_fields, "crf", *apply_values(CRFNumbers(), values).list_given()):
        if name in values:
            raise InputError(f"--{name.replace('_', '-')} has no effect on ready-made labels; leave it out.")


def _apply_crf(settings: Any, values: dict[str, Any]) -> Any:
    """Return settings with the given values, and the CRF of the given preset and numbers."""
    numbers = apply_values(CRFNumbers(), values)
    if "crf" in values or numbers.list_given():
        values = values | {"crf": make_crf_settings(values.get("crf", settings.crf), numbers)}
    return apply_values(settings, values)


def _train(train: Callable[..., Any], settings: Any, values: dict[str, Any], options: TrainingOptions) -> Any:
    from camplug.wsss.data import open_images

    data, network = apply_values(DataOptions(), values), apply_values(NetworkOptions(), values)
    source, layers = apply_values(LabelSource(), values), apply_values(LayerOptions(), values).layers
    labels_from: Any = source.labels
    made_with: dict[str, Any] = {}
    if labels_from is None:
        labels_from, made_with = open_seeds(source.seeds, data)
    dataset = open_images(data.get_data(), data.split, made_with.get("classes", ()))
    check_classes(made_with, dataset.classes)
    model = network.load()
    return train(
        model,
        dataset,
        labels_from,
        options.out,
        settings,
        layers=layers[0] if len(layers) == 1 else list(layers),
        preprocess=network.find_preprocess(model),
        **options.keywords,
        made_with=network.origin,
    )
