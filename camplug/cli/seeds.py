"""`camplug seeds`: the activation maps of a whole data set."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from camplug.cli import common
from camplug.cli.config import read_config
from camplug.cli.numbers import NUMBERS, read_colour
from camplug.errors import InputError
from camplug.explain import create
from camplug.wsss.store.jobs import share, wait_for_processes

NUMBER = (int, float)
OPTIONS: dict[str, Any] = {
    "data": str,
    "split": str,
    "explainer": str,
    "model": str,
    "checkpoint": str,
    "num_classes": int,
    "long_side": int,
    "mean": NUMBERS,
    "std": NUMBERS,
    "out": str,
    "dtype": str,
    "scale": NUMBER,
    "labels": str,
    "probability": NUMBER,
    "device": str,
}
DEFAULTS: dict[str, Any] = {
    "explainer": "FullyCAM",
    "model": "demo",
    "out": "seeds",
    "dtype": "uint8",
    "scale": 1.0,
    "labels": "given",
}
PROBABILITY = 0.5


def seeds(  # noqa: PLR0917
    data: common.Data = None,
    split: common.Split = None,
    explainer: Annotated[
        str | None,
        typer.Option(
            help='Written as in Python, "MultiView(FullyCAM, flip=False)" for instance.', show_default="FullyCAM"
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="As for `camplug explain`.", show_default="demo")
    ] = None,
    checkpoint: common.Checkpoint = None,
    num_classes: common.NumClasses = None,
    long_side: common.LongSide = None,
    mean: common.Mean = None,
    std: common.Std = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the seeds.", show_default="seeds")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Storage type of the maps: uint8 or float16.", show_default="uint8")
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Size of the stored maps relative to the photographs, at most 1.", show_default="1"),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="given: the classes that an image is labelled with; predicted: those that the model finds, which "
            "photographs without labels take.",
            show_default="given",
        ),
    ] = None,
    probability: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Of --labels predicted: the best class and those above this.", show_default="0.5"
        ),
    ] = None,
    device: common.BestDevice = None,
    overwrite: common.Overwrite = False,
    config: common.Config = None,
    as_json: common.AsJson = False,
) -> None:
    """Make the maps of a data set's images for the classes that they are labelled with, or that are predicted, as .npz.

    Stopped at any moment, the same command goes on where it was; after a change of a photograph or of its labels, its
    seed alone is made again.
    Under torchrun each process takes its share: torchrun --nproc-per-node 2 -m camplug seeds ...
    Broken images are listed at the end, exit code 1.
    """
    given = dict(locals())
    with common.plain_errors():
        from camplug.wsss.class_names import order_like_folder
        from camplug.wsss.data import Photographs, open_data, open_images
        from camplug.wsss.seeds import SeedFolder, find_output_names, make_seeds
        from camplug.wsss.store.identity import make_network_settings

        chosen = DEFAULTS | read_config(config, OPTIONS)
        chosen |= {k: v for k, v in given.items() if k in OPTIONS and v is not None}
        if chosen.get("data") is None:
            raise InputError("--data is missing; for instance --data voc:VOCdevkit/VOC2012 --split train.")
        if chosen.get("num_classes") is not None and chosen["num_classes"] < 1:
            raise InputError(f"num_classes = {chosen['num_classes']}; give at least 1.")
        predicted = read_predicted(chosen)
        rank, world = share()
        dataset = (open_data if predicted is None else open_images)(str(chosen["data"]), chosen.get("split"))
        weights = None if chosen.get("checkpoint") is None else Path(str(chosen["checkpoint"]))
        net = common.load(
            str(chosen["model"]), weights, chosen.get("num_classes"), device_of(chosen.get("device"), rank)
        )
        options = common.explainer_options(net, None, chosen.get("mean"), chosen.get("std"), chosen.get("long_side"))
        made = create(str(chosen["explainer"]), net, **options)
        if isinstance(dataset, Photographs):
            dataset = dataset.with_classes(find_output_names(made, dataset))
        folder = SeedFolder(Path(str(chosen["out"])))
        dataset = order_like_folder(folder, dataset)
        chosen |= {k: read_colour(k, chosen.get(k)) for k in ("mean", "std")}
        settings = {k: chosen.get(k) for k in ("explainer", "long_side", "mean", "std", "dtype", "scale")}
        settings |= make_network_settings(net, str(chosen["model"]), chosen.get("num_classes"))
        settings |= {"classes": list(dataset.classes), "labels": chosen["labels"]}
        settings |= {} if predicted is None else {"probability": predicted}
        folder.prepare(settings, overwrite=overwrite)
        mine = len(range(rank, len(dataset), world))
        start = time.perf_counter()
        with common.progress("seeds", mine, shown=rank == 0) as advance:
            report = make_seeds(
                made,
                dataset,
                folder,
                dtype=chosen["dtype"],
                scale=float(chosen["scale"]),
                predicted=predicted,
                shard=(rank, world),
                step=lambda _: advance(),
            )
        tell("seeds", folder.path, report, time.perf_counter() - start, (rank, world), as_json)
        wait_for_processes("seeds", needed=False)
        if report.broken:
            raise typer.Exit(1)


def read_predicted(chosen: dict[str, Any]) -> float | None:
    """Return the probability above which classes are explained; None where labels say which.

    Raises:
        InputError: another source of classes; a probability that is not used, or none.
    """
    if chosen["labels"] not in ("given", "predicted"):
        raise InputError(f"--labels {chosen['labels']!r}; allowed are given and predicted.")
    value = chosen.get("probability")
    if chosen["labels"] == "given":
        if value is not None:
            raise InputError("--probability has no effect on given labels; add --labels predicted, or leave it out.")
        return None
    return PROBABILITY if value is None else float(value)


def device_of(wanted: str | None, rank: int) -> str:
    """The device that is asked for; of several CUDA devices ("cuda", or nothing said) the process's own."""
    import torch

    count = torch.cuda.device_count()
    if wanted not in (None, "cuda") or not count:
        return wanted or "cpu"
    local = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{(int(local) if local.isdecimal() else rank) % count}"


def tell(  # noqa: PLR0917
    what: str,
    folder: Path,
    report: Any,
    seconds: float,
    shard: tuple[int, int],
    as_json: bool,
    more: dict[str, Any] | None = None,
) -> None:
    """Print what a run over a data set did, and what was skipped.

    Args:
        what: was made.
        folder: where it lies.
        report: of `camplug.wsss.store.jobs.make_results`.
        seconds: that it took.
        shard: this process's share.
        as_json: one JSON document, not a line.
        more: what else belongs into that document.
    """
    numbers = {
        "folder": str(folder),
        "shard": list(shard),
        "made": report.made,
        "found": report.found,
        "seconds_per_image": seconds / report.made if report.made else None,
        "megabytes_per_1000_images": report.bytes / report.made / 1e3 if report.made else None,
        **(more or {}),
        "broken": [{"image": name, "error": error} for name, error in report.broken],
    }
    if as_json:
        common.print_json(numbers)
    else:
        which = f" (share {shard[0] + 1} of {shard[1]})" if shard[1] > 1 else ""
        text = f"{folder}{which}: {report.made} {what} made, {report.found} were there"
        if report.made:
            text += (
                f"; {numbers['seconds_per_image']:.2f} s per image, "
                f"{numbers['megabytes_per_1000_images']:.1f} MB per 1000 images"
            )
        common.out.print(common.escaped(text), soft_wrap=True)
    common.show_broken(report.broken)
