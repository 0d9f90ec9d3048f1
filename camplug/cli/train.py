"""`camplug train`; `irn` and `affinitynet`, the networks that random walks ask, from seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from camplug.cli import common, crf_options, train_classifier, train_deeplab
from camplug.cli import train_options as of
from camplug.cli.config import read_config
from camplug.cli.crf_options import read_crf
from camplug.cli.evaluate import check_classes
from camplug.cli.numbers import read_numbers
from camplug.cli.options import takes
from camplug.cli.pseudo_labels import seeds_of
from camplug.cli.seeds import device_of
from camplug.cli.shown import Shown, stoppable
from camplug.cli.walk import need_lightning, threshold_read
from camplug.errors import InputError
from camplug.wsss.store.jobs import share

app = typer.Typer(
    name="train",
    help="Train classifiers, the networks that refine seeds, and segmentation networks.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

S = TypeVar("S")

train_classifier.register(app)
train_deeplab.register(app)


@app.command("irn")
@takes(of.TrainOptions)
def irn(
    foreground: Annotated[
        str | None,
        typer.Option(help="Labels: above this an object; otsu reads it off the seeds' values.", show_default="0.3"),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(help="Labels: up to this background; otsu reads it off the seeds' values.", show_default="0.05"),
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Channels of the displacement head; 0 for none.", show_default="256")
    ] = None,
    **given: Any,
) -> None:
    """Train IRN's boundaries and displacements on a classifier, from its seeds; writes OUT/irn.pt.

    Stopped at any moment, the same command goes on where it was.
    Under torchrun the processes share labels and batches: torchrun --nproc-per-node 2 -m camplug train ...
    Images without a seed or label picture, and broken ones, are left out and listed, exit code 1.
    """
    given |= {"foreground": foreground, "background": background, "width": width}
    with stoppable(), common.plain_errors():
        chosen = _chosen(given, of.OF_IRN, "runs/irn")
        from camplug.wsss.irn import IRNSettings, train_irn

        for name in ("foreground", "background"):
            if name in chosen:
                chosen[name] = threshold_read(name, chosen[name])
        settings = _changed(IRNSettings(), chosen, ("foreground", "background"))
        _run(train_irn, settings, chosen, given["as_json"])


@app.command("affinitynet")
@takes(of.TrainOptions)
def affinitynet(
    low: Annotated[
        float | None, typer.Option(help="Labels: the alpha that names sure objects.", show_default="4")
    ] = None,
    high: Annotated[
        float | None, typer.Option(help="Labels: the alpha that names sure background.", show_default="32")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Channels of the features, a multiple of 56.", show_default="448")
    ] = None,
    **given: Any,
) -> None:
    """Train PSA's AffinityNet on a classifier, from its seeds; writes OUT/affinitynet.pt.

    Stopped at any moment, the same command goes on where it was.
    Under torchrun the processes share labels and batches: torchrun --nproc-per-node 2 -m camplug train ...
    Images without a seed or label picture, and broken ones, are left out and listed, exit code 1.
    """
    given |= {"low": low, "high": high, "width": width}
    with stoppable(), common.plain_errors():
        chosen = _chosen(given, of.OF_AFFINITYNET, "runs/affinitynet")
        from camplug.wsss.affinitynet import AffinityNetSettings, train_affinitynet

        settings = _changed(AffinityNetSettings(), chosen, ("low", "high"))
        _run(train_affinitynet, settings, chosen, given["as_json"])


def _chosen(given: dict[str, Any], own: dict[str, Any], out: str) -> dict[str, Any]:
    """All options that are set, those of the command line before those of the file.

    Raises:
        InputError: what can be refused before anything is loaded.
    """
    need_lightning()
    allowed = of.OPTIONS | own
    chosen = of.DEFAULTS | {"out": out} | read_config(given["config"], allowed)
    chosen |= {k: v for k, v in given.items() if k in allowed and v is not None}
    chosen["overwrite"] = given["overwrite"]
    if (chosen.get("seeds") is None) == (chosen.get("labels") is None):
        raise InputError("give either a folder of seeds or, with --labels, one of label pictures.")
    if chosen.get("data") is None:
        raise InputError("--data is missing; for instance --data voc:VOCdevkit/VOC2012 --split train.")
    if chosen.get("num_classes") is not None and chosen["num_classes"] < 1:
        raise InputError(f"num_classes = {chosen['num_classes']}; give at least 1.")
    if chosen["workers"] < 0:
        raise InputError(f"--workers {chosen['workers']}; give 0 or more.")
    scales = chosen.get("scales")
    if scales is not None:
        chosen["scales"] = read_numbers("scales", scales, (2,))
    return chosen


def _changed(settings: Any, chosen: dict[str, Any], of_labels: tuple[str, ...]) -> Any:
    """Settings of a training with the chosen options in place of the defaults.

    Raises:
        InputError: an option out of its range, or of the labels, which are ready-made.
    """
    crf = [name for name in crf_options.OPTIONS if chosen.get(name) is not None]
    idle = [name for name in (*of_labels, *crf) if name in chosen and chosen.get("labels") is not None]
    if idle:
        raise InputError(f"--{idle[0].replace('_', '-')} has no effect on ready-made labels; leave it out.")

    def changed(part: S) -> S:
        names = {f.name for f in fields(part)}  # type: ignore[arg-type]
        return replace(part, **{k: v for k, v in chosen.items() if k in names})  # type: ignore[type-var]

    network = replace(settings.network, schedule=changed(settings.network.schedule))
    network = replace(network, **{k: chosen[k] for k in ("radius", "width") if k in chosen})
    own = {name: chosen[name] for name in of_labels if name in chosen}
    if crf:
        own["crf"] = read_crf({"crf": settings.crf, **chosen})
    return replace(settings, network=network, training=changed(settings.training), **own)


def _run(train: Callable[..., Any], settings: Any, chosen: dict[str, Any], as_json: bool) -> None:
    """Train, and tell what came out."""
    from camplug.wsss.data import open_images

    labels_from: Any = chosen.get("labels")
    made_with: dict[str, Any] = {}
    if labels_from is None:
        labels_from, made_with = seeds_of(chosen)
    else:
        labels_from = Path(str(labels_from))
    dataset = open_images(str(chosen["data"]), chosen.get("split"), made_with.get("classes", ()))
    check_classes(made_with, dataset.classes)
    weights = None if chosen.get("checkpoint") is None else Path(str(chosen["checkpoint"]))
    rank, _ = share()
    device = device_of(chosen.get("device"), rank)
    model = common.load(str(chosen["model"]), weights, chosen.get("num_classes"), device)
    names = [name.strip() for name in str(chosen["layers"]).split(",")]
    done = train(
        model,
        dataset,
        labels_from,
        Path(str(chosen["out"])),
        settings,
        layers=names[0] if len(names) == 1 else names,
        preprocess=common.explainer_options(model, None, chosen.get("mean"), chosen.get("std")).get("preprocess"),
        workers=chosen["workers"],
        amp=chosen["amp"],
        allow_missing=chosen["allow_missing"],
        overwrite=chosen["overwrite"],
        made_with={
            "model": chosen["model"],
            "checkpoint": None if weights is None else str(weights.resolve()),
            "num_classes": chosen.get("num_classes"),
        },
        watch=Shown(as_json or rank > 0),
    )
    if as_json and rank == 0:
        common.print_json(
            {
                "folder": str(chosen["out"]),
                "file": str(done.file),
                "label_settings": done.label_settings,
                "labels": None if done.labels is None else {"made": done.labels.made, "found": done.labels.found},
                "images": done.images,
                "losses": done.losses,
                "broken": [{"image": name, "error": error} for name, error in done.broken],
            }
        )
    if rank == 0:
        common.show_broken(done.broken)
    if done.broken:
        raise typer.Exit(1)
