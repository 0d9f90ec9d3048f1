"""`camplug segment`: the label pictures of a data set by a trained network."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from camplug.cli import common, crf_options
from camplug.cli.config import read_config
from camplug.cli.crf_options import read_crf
from camplug.cli.numbers import NUMBERS, read_numbers
from camplug.cli.seeds import device_of, tell
from camplug.errors import InputError
from camplug.wsss.store.jobs import share, wait_for_processes

OPTIONS: dict[str, Any] = {
    "weights": str,
    "data": str,
    "split": str,
    "out": str,
    "scales": NUMBERS,
    "flip": bool,
    "fuse": str,
    "labels": str,
    "long_side": int,
    "device": str,
} | crf_options.OPTIONS
DEFAULTS: dict[str, Any] = {
    "out": "predictions",
    "scales": "1",
    "flip": False,
    "fuse": "mean",
    "crf": "none",
    "labels": "none",
}


def segment(  # noqa: PLR0917
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Photographs without labels, or folders of them; or --data.", show_default=False),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", "-w", help="Network made by `camplug train deeplab`.")
    ] = None,
    data: common.Data = None,
    split: common.Split = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the label pictures.", show_default="predictions")
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help="Factors of the photograph's size, separated by commas.", show_default="1")
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Also take mirror images.", show_default="no")
    ] = None,
    fuse: Annotated[
        str | None, typer.Option(help="mean of the probabilities, or max of the logits.", show_default="mean")
    ] = None,
    crf: Annotated[
        str | None, typer.Option(help="Dense CRF at the end: deeplab, irn, affinitynet or none.", show_default="none")
    ] = None,
    crf_gaussian: crf_options.Gaussian = None,
    crf_bilateral: crf_options.Bilateral = None,
    crf_iterations: crf_options.Iterations = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="given: only the classes that an image is labelled with, to make better pseudo-labels of training "
            "images; none: as where nothing is known.",
            show_default="none",
        ),
    ] = None,
    long_side: Annotated[
        int | None,
        typer.Option(min=1, help="Photographs are first brought to this longer side.", show_default="their own size"),
    ] = None,
    device: common.BestDevice = None,
    overwrite: common.Overwrite = False,
    config: common.Config = None,
    as_json: common.AsJson = False,
) -> None:
    """Make label pictures of photographs or of a data set with a segmentation network; `camplug evaluate` scores them.

    Writes palette PNGs. Stopped at any moment, the same command goes on where it was; after a change of a photograph,
    its labels alone are made again.
    Under torchrun each process takes its share: torchrun --nproc-per-node 2 -m camplug segment ...
    Broken images are listed at the end, exit code 1.
    """
    given = dict(locals())
    with common.plain_errors():
        from camplug.wsss.class_names import match_classes, order_like_folder
        from camplug.wsss.data import Photographs, SegmentationData, open_images
        from camplug.wsss.deeplab.checkpoint import load_deeplab
        from camplug.wsss.deeplab.segmenter import Segmenter, make_predictions
        from camplug.wsss.pseudo import LabelFolder
        from camplug.wsss.store.identity import make_file_digest

        chosen = DEFAULTS | read_config(config, OPTIONS)
        chosen |= {k: v for k, v in given.items() if k in OPTIONS and v is not None}
        if chosen.get("weights") is None:
            raise InputError("--weights is missing; give the deeplab.pt that `camplug train deeplab` has written.")
        if bool(photos) == (chosen.get("data") is not None):
            raise InputError(
                "give either photographs, as in camplug segment a.jpg b.jpg, or --data, as in --data "
                "voc:VOCdevkit/VOC2012 --split val."
            )
        if chosen["labels"] not in ("none", "given"):
            raise InputError(f"--labels {chosen['labels']!r}; allowed are none and given.")
        labelled = chosen["labels"] == "given"
        file = Path(str(chosen["weights"]))
        rank, world = share()
        network = load_deeplab(file).to(common.device_named(device_of(chosen.get("device"), rank)))
        if photos:
            dataset: SegmentationData = Photographs(photos, network.classes)
        else:
            dataset = open_images(str(chosen["data"]), chosen.get("split"), network.classes)
        if labelled and not dataset.has_labels:
            raise InputError("--labels given needs image labels, and the data has none; leave it out.")
        match_classes(network.classes, dataset.classes, "the network")
        dense = read_crf(chosen)
        segmenter = Segmenter(
            network,
            scales=read_numbers("scales", chosen["scales"]),
            flip=chosen["flip"],
            fuse=chosen["fuse"],
            crf=dense,
            long_side=chosen.get("long_side"),
        )
        folder = LabelFolder(Path(str(chosen["out"])))
        dataset = order_like_folder(folder, dataset)
        folder.prepare(
            {
                "classes": list(dataset.classes),
                "network": {"weights": make_file_digest(file, "network")},
                "scales": list(segmenter.scales),
                "flip": segmenter.flip,
                "fuse": segmenter.fuse,
                "crf": None if dense is None else asdict(dense),
                "long_side": segmenter.long_side,
            }
            | ({"labels": "given"} if labelled else {}),
            overwrite=overwrite,
        )
        start = time.perf_counter()
        with common.progress("labels", len(range(rank, len(dataset), world)), shown=rank == 0) as advance:
            report = make_predictions(
                segmenter,
                dataset,
                folder,
                labelled=labelled,
                shard=(rank, world),
                step=lambda _: advance(),
            )
        tell("labels", folder.path, report, time.perf_counter() - start, (rank, world), as_json)
        wait_for_processes("segment", needed=False)
        if report.broken:
            raise typer.Exit(1)
