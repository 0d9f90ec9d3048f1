"""Command `camplug average-seeds`: the mean of the seeds in several folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from camplug.cli import common
from camplug.cli.evaluate import check_classes
from camplug.cli.jobs import run_job
from camplug.cli.option_groups import DataOptions
from camplug.cli.options import add_options, read_options
from camplug.cli.pseudo_labels import open_seeds
from camplug.errors import InputError
from camplug.settings import apply_values
from camplug.wsss.store.seed_folder import MapStorage


@dataclass(frozen=True)
class AverageOptions:
    """Folder, weights and saliency of averaged seeds."""

    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the averaged seeds.")] = Path("averaged_seeds")
    weights: Annotated[
        tuple[float, ...] | None,
        typer.Option(
            help="Weight of each folder, and behind them that of the saliency: 1,1,0.5.", show_default="all the same"
        ),
    ] = None
    saliency: Annotated[
        str | None,
        typer.Option(
            help="Saliency map to average with every class: a folder of grey PNGs or JPEGs, the file of a saliency "
            "network (.pt, .pt2, .onnx), contrast or spectral."
        ),
    ] = None
    overwrite: common.Overwrite = False


GROUPS = DataOptions(), AverageOptions(), MapStorage()


@add_options(*GROUPS)
def average_seeds(
    seeds: Annotated[list[Path], typer.Argument(help="Folders of seeds of the same images, made by `camplug seeds`.")],
    config: common.Config = None,
    as_json: common.AsJson = False,
    **given: Any,
) -> None:
    """Average the seeds of several folders, and a saliency map if wanted; masks are not read.

    The result is a folder of seeds for `camplug evaluate`, `camplug pseudo-labels` and the trainings.
    If it is stopped, the same command continues; after a change of a seed, its average alone is made again.
    Broken images, and those without a seed in one of the folders, are listed at the end, exit code 1.
    """
    with common.report_errors():
        from camplug.wsss.class_names import order_like_folder
        from camplug.wsss.data import open_images
        from camplug.wsss.saliency_source import SaliencySource
        from camplug.wsss.seeds import SeedFolder
        from camplug.wsss.seeds.average import check_weights, prepare_average_seeds

        values = read_options(given, config, *GROUPS)
        data, options = apply_values(DataOptions(), values), apply_values(AverageOptions(), values)
        opened = [open_seeds(path, data) for path in seeds]
        sources, made_with = [source for source, _ in opened], [settings for _, settings in opened]
        if any(path.resolve() == options.out.resolve() for path in seeds):
            raise InputError(f"--out {str(options.out)!r} is one of the folders to average; give another one.")
        count = len(sources) + (options.saliency is not None)
        weights = options.weights or (1.0,) * count
        check_weights(weights, count)
        dataset = open_images(data.get_data(), data.split, made_with[0].get("classes", ()))
        for settings in made_with:
            check_classes(settings, dataset.classes)
        dataset = order_like_folder(SeedFolder(options.out), dataset)
        saliency = None if options.saliency is None else SaliencySource(options.saliency, dataset)
        make = prepare_average_seeds(
            dataset,
            sources,
            weights,
            lambda own: SeedFolder(options.out).prepare(own, overwrite=options.overwrite),
            saliency=saliency,
            storage=apply_values(MapStorage(), values),
        )
        run_job("average-seeds", "seeds", options.out, len(dataset), make, as_json=as_json)
