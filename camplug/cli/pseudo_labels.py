"""Command `camplug pseudo-labels`: label pictures from the seeds of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camplug.cli import common
from camplug.cli.crf_options import CRFOptions
from camplug.cli.evaluate import check_classes, find_results
from camplug.cli.jobs import run_job
from camplug.cli.option_groups import DataOptions
from camplug.cli.options import add_options, read_options
from camplug.cli.own_walk import find_own_walk
from camplug.cli.walk import (
    WalkOptions,
    choose_threshold,
    describe_walk,
    format_facts,
    make_scores,
    make_walk_settings,
    refuse_idle_options,
)
from camplug.errors import InputError
from camplug.settings import apply_values
from camplug.wsss.pseudo.settings import LabelSettings, WalkedMapSettings
from camplug.wsss.store.processes import get_shard

if TYPE_CHECKING:
    from camplug.wsss.crf import Refinement
    from camplug.wsss.seeds import SeedFolder


@dataclass(frozen=True)
class SeedsArgument:
    """Seeds that a command reads."""

    seeds: Annotated[
        Path | None, typer.Argument(help="Folder of seeds, made by `camplug seeds`.", show_default=False)
    ] = None


@dataclass(frozen=True)
class RunOptions:
    """Folder and device of labels or walked maps."""

    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the label pictures.")] = Path("labels")
    overwrite: common.Overwrite = False
    device: common.BestDevice = None


GROUPS = (
    SeedsArgument(),
    DataOptions(),
    RunOptions(),
    LabelSettings(),
    WalkedMapSettings(),
    WalkOptions(),
    CRFOptions(),
)


@add_options(*GROUPS)
def pseudo_labels(
    maps: Annotated[
        bool, typer.Option("--maps", help="Store the walked maps as seeds, to choose a threshold on.")
    ] = False,
    config: common.Config = None,
    as_json: common.AsJson = False,
    **given: Any,
) -> None:
    """Make pseudo-labels from seeds: an optional random walk, a background, a refinement by colours.

    Writes palette PNGs. If it is stopped, the same command continues; after a change of a seed or a photograph,
    its labels alone are made again.
    Under torchrun the processes share the images: torchrun --nproc-per-node 2 -m camplug pseudo-labels ...
    Broken images, and those without a seed, are listed at the end, exit code 1.
    """
    with common.report_errors():
        from camplug.wsss.class_names import order_like_folder
        from camplug.wsss.data import open_images
        from camplug.wsss.pseudo import LabelFolder, PseudoLabels, prepare_labels, prepare_walked_seeds
        from camplug.wsss.seeds import SeedFolder

        values = read_options(given, config, *GROUPS)
        data, options = apply_values(DataOptions(), values), apply_values(RunOptions(), values)
        walk = apply_values(WalkOptions(), values)
        source, made_with = open_seeds(apply_values(SeedsArgument(), values).seeds, data)
        dataset = open_images(data.get_data(), data.split, made_with.get("classes", ()))
        check_classes(made_with, dataset.classes)
        kind_of_walk = walk.choose_walk()
        refuse_idle_options(values, kind_of_walk, maps)
        own = find_own_walk(kind_of_walk)
        walk_settings = own.describe() if own else make_walk_settings(kind_of_walk, walk.weights, values)
        threshold, origin = (None, "")
        if not maps and kind_of_walk != "affinitynet":
            before = made_with.get("walk") if walk_settings is None else walk_settings
            default = own.walk.threshold if own else None
            threshold, origin = choose_threshold(walk, before, source, dataset, kind_of_walk, default=default)
        crf = _make_crf(values)
        rank, _ = get_shard()
        device = common.choose_device(options.device, rank)
        scores: Any = own.make_scores(threshold) if own else make_scores(walk, threshold, walk_settings, device)
        facts = describe_walk(walk_settings, threshold, origin)
        dataset = order_like_folder(SeedFolder(options.out), dataset)
        made_of: dict[str, Any] = {"classes": list(dataset.classes), "seeds": made_with, "walk": walk_settings}
        folder: Any = SeedFolder(options.out) if maps else LabelFolder(options.out)

        def open_folder(own: dict[str, Any]) -> Any:
            return folder.prepare(made_of | own, overwrite=options.overwrite)

        if maps:
            walked = apply_values(WalkedMapSettings(), values)
            make = prepare_walked_seeds(scores, walked, dataset, source, open_folder)
        else:
            made_of["threshold"] = threshold
            settings = apply_values(LabelSettings(), values)
            labels = PseudoLabels(scores, crf, settings.certainty, device=device)
            make = prepare_labels(labels, settings, dataset, source, open_folder)
        if rank == 0 and not as_json:
            common.out.print(common.escape_markup("\n".join(format_facts(facts))), soft_wrap=True)
        what = "seeds" if maps else "labels"
        run_job("pseudo-labels", what, options.out, len(dataset), make, as_json=as_json, facts=facts)


def _make_crf(values: Mapping[str, Any]) -> Refinement | None:
    from camplug.wsss.crf import PARSettings

    crf = apply_values(CRFOptions(), values).make_settings()
    if "certainty" in values and isinstance(crf, PARSettings):
        raise InputError("--certainty has no effect with --crf par; leave it out.")
    return crf


def open_seeds(path: Path | None, data: DataOptions) -> tuple[SeedFolder, dict[str, Any]]:
    """Return a folder of seeds, and the settings that they were made with.

    Args:
        path: folder of seeds.
        data: the images that go with them.

    Raises:
        InputError: no folder or no data is given; the folder holds something else.
    """
    from camplug.wsss.seeds import SeedFolder

    if path is None:
        raise InputError("the folder of seeds is missing; write for instance: camplug pseudo-labels seeds --data ...")
    data.get_data()
    holds, settings = find_results(path)
    if holds != "seeds":
        raise InputError(f"{str(path)!r} holds label pictures; give a folder of seeds, made by `camplug seeds`.")
    return SeedFolder(path), settings
