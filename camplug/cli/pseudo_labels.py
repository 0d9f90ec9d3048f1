"""`camplug pseudo-labels`: from the seeds of a data set to its label pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camplug.cli import common, crf_options
from camplug.cli.config import read_config
from camplug.cli.crf_options import read_crf
from camplug.cli.evaluate import check_classes, kind
from camplug.cli.seeds import NUMBER, device_of, tell
from camplug.cli.walk import (
    chosen_walk,
    facts_of,
    lines_of,
    refuse_idle,
    scores_of,
    settings_of_walk,
    threshold_of,
)
from camplug.errors import InputError
from camplug.wsss.store.jobs import share, wait_for_processes

if TYPE_CHECKING:
    from camplug.wsss.store.jobs import Report

OPTIONS: dict[str, Any] = {
    "seeds": str,
    "data": str,
    "split": str,
    "out": str,
    "walk": str,
    "weights": str,
    "model": str,
    "checkpoint": str,
    "num_classes": int,
    "threshold": (str, *NUMBER),
    "threshold_from": str,
    "alpha": NUMBER,
    "beta": NUMBER,
    "steps": int,
    "power": NUMBER,
    "clear": NUMBER,
    "certainty": NUMBER,
    "dtype": str,
    "scale": NUMBER,
    "long_side": int,
    "device": str,
} | crf_options.OPTIONS
DEFAULTS: dict[str, Any] = {"out": "labels", "crf": "irn", "certainty": 0.7, "dtype": "uint8", "scale": 1.0}
Crf = Annotated[str | None, typer.Option(help="Dense CRF: irn, affinitynet, deeplab or none.", show_default="irn")]


def pseudo_labels(  # noqa: PLR0917
    seeds: Annotated[
        Path | None, typer.Argument(help="Folder of seeds, made by `camplug seeds`.", show_default=False)
    ] = None,
    data: common.Data = None,
    split: common.Split = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the label pictures.", show_default="labels")
    ] = None,
    walk: Annotated[
        str | None,
        typer.Option(
            help="Random walk: none, irn or affinitynet.", show_default="what the weights are for, none without"
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Heads made by `camplug train irn` or `camplug train affinitynet`.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="As for `camplug explain`.", show_default="the one that the weights name"),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="State dict to load into the model.", show_default="the one that the weights name"),
    ] = None,
    num_classes: common.NumClasses = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Up to here a pixel is background; otsu reads it off the maps' values. Not for affinitynet.",
            show_default="0.25 for irn, else none",
        ),
    ] = None,
    threshold_from: Annotated[
        Path | None,
        typer.Option(help="Take the threshold that was best in this report (.json) of `camplug evaluate`."),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Of affinitynet: the lower, the more background.", show_default="16")
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Power of affinities.", show_default="10 for irn, 8 for affinitynet")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the walk.", show_default="256")] = None,
    power: Annotated[float | None, typer.Option(help="Of irn: power of the maps.", show_default="1")] = None,
    clear: Annotated[
        float | None, typer.Option(help="Of irn: how much boundaries are cleared of the maps.", show_default="1")
    ] = None,
    crf: Crf = None,
    crf_gaussian: crf_options.Gaussian = None,
    crf_bilateral: crf_options.Bilateral = None,
    crf_iterations: crf_options.Iterations = None,
    certainty: Annotated[
        float | None, typer.Option(help="What the CRF gives a label to begin with.", show_default="0.7")
    ] = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Store the walked maps as seeds, to choose a threshold on.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="Storage type of the maps of --maps: uint8 or float16.", show_default="uint8")
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Size of the maps that --maps stores relative to the photographs.", show_default="1"),
    ] = None,
    device: common.BestDevice = None,
    long_side: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Photographs with a longer side are brought to it first, and their labels back.",
            show_default="their own size",
        ),
    ] = None,
    overwrite: common.Overwrite = False,
    config: common.Config = None,
    as_json: common.AsJson = False,
) -> None:
    """Make pseudo-labels from seeds: a random walk (IRN or PSA) if wanted, a background, a dense CRF.

    Writes palette PNGs. Stopped at any moment, the same command goes on where it was; after a change of a seed or a
    photograph, its labels alone are made again.
    Under torchrun each process takes its share: torchrun --nproc-per-node 2 -m camplug pseudo-labels ...
    Broken images, and those without a seed, are listed at the end, exit code 1.
    """
    given = dict(locals())
    with common.plain_errors():
        from camplug.wsss.class_names import order_like_folder
        from camplug.wsss.data import open_images
        from camplug.wsss.pseudo import LabelFolder, PseudoLabels, make_labels, make_walked_seeds
        from camplug.wsss.seeds import SeedFolder
        from camplug.wsss.store.seed_folder import check_storage

        told = read_config(config, OPTIONS) | {k: v for k, v in given.items() if k in OPTIONS and v is not None}
        chosen = DEFAULTS | told
        source, made_with = seeds_of(chosen)
        rank, world = share()
        dataset = open_images(str(chosen["data"]), chosen.get("split"), made_with.get("classes", ()))
        check_classes(made_with, dataset.classes)
        kind_of_walk = chosen_walk(chosen)
        refuse_idle(told, kind_of_walk, maps)
        walk_settings = settings_of_walk(kind_of_walk, chosen)
        value, how = (None, "")
        if not maps and kind_of_walk != "affinitynet":
            before = made_with.get("walk") if walk_settings is None else walk_settings
            value, how = threshold_of(chosen, before, source, dataset, kind_of_walk)
        dense = read_crf(chosen)
        scores = scores_of(chosen, value, walk_settings, device_of(chosen.get("device"), rank))
        facts = facts_of(walk_settings, value, how)
        path, what = Path(str(chosen["out"])), "seeds" if maps else "labels"
        dataset = order_like_folder(SeedFolder(path), dataset)
        made_of: dict[str, Any] = {"classes": list(dataset.classes), "seeds": made_with, "walk": walk_settings}
        longest = {} if chosen.get("long_side") is None else {"long_side": chosen["long_side"]}
        make: Callable[..., Report]
        if maps:
            stored = {"dtype": chosen["dtype"], "scale": float(chosen["scale"])}
            check_storage(**stored)
            walked = SeedFolder(path)
            walked.prepare(made_of | stored | longest, overwrite=overwrite)
            make = partial(make_walked_seeds, scores, dataset, source, walked, **stored, **longest)
        else:
            refined = {"crf": None if dense is None else asdict(dense), "certainty": chosen["certainty"]}
            labels = PseudoLabels(scores, dense, float(chosen["certainty"]))
            folder = LabelFolder(path)
            folder.prepare(made_of | {"threshold": value} | refined | longest, overwrite=overwrite)
            make = partial(make_labels, labels, dataset, source, folder, **longest)
        if rank == 0 and not as_json:
            for line in lines_of(facts):
                common.out.print(common.escaped(line), soft_wrap=True)
        start = time.perf_counter()
        with common.progress(what, len(range(rank, len(dataset), world)), shown=rank == 0) as advance:
            report = make(shard=(rank, world), step=lambda _: advance())
        tell(what, path, report, time.perf_counter() - start, (rank, world), as_json, facts)
        wait_for_processes("pseudo-labels", needed=False)
        if report.broken:
            raise typer.Exit(1)


def seeds_of(chosen: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The folder of seeds, and what they were made with.

    Raises:
        InputError: none is named, or no data; the folder holds something else.
    """
    from camplug.wsss.seeds import SeedFolder

    if chosen.get("seeds") is None:
        raise InputError("the folder of seeds is missing; write for instance: camplug pseudo-labels seeds --data ...")
    if chosen.get("data") is None:
        raise InputError("--data is missing; for instance --data voc:VOCdevkit/VOC2012 --split train.")
    folder = Path(str(chosen["seeds"]))
    holds, settings = kind(folder)
    if holds != "seeds":
        raise InputError(f"{str(folder)!r} holds label pictures; give a folder of seeds, made by `camplug seeds`.")
    return SeedFolder(folder), settings
