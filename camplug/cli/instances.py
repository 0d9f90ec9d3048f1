"""Command `camplug instances`: the objects of a data set's photographs, from its seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from camplug.cli import common
from camplug.cli.jobs import run_job
from camplug.cli.option_groups import DataOptions
from camplug.cli.options import add_options, read_options
from camplug.cli.pseudo_labels import SeedsArgument, open_seeds
from camplug.cli.walk import ThresholdOptions, choose_threshold, describe_walk, format_facts, make_walk_settings
from camplug.cli.walk_network import WeightsOptions, load_walk_network
from camplug.errors import InputError
from camplug.settings import apply_values
from camplug.wsss.irn.instances import SMALLEST, check_share
from camplug.wsss.pseudo.settings import SizeSettings
from camplug.wsss.pseudo.walk_settings import IRNWalkSettings
from camplug.wsss.store.processes import get_shard


@dataclass(frozen=True)
class InstanceOptions:
    """Storage and smallest area of instances.

    Raises:
        InputError: an area out of its range.
    """

    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the instances.")] = Path("instances")
    smallest: Annotated[
        float, typer.Option(help="Minimum area of an instance, as a part of the photograph, in [0, 1).")
    ] = SMALLEST
    overwrite: common.Overwrite = False
    device: common.BestDevice = None

    def __post_init__(self) -> None:
        check_share(self.smallest, "smallest")


GROUPS = (
    SeedsArgument(),
    DataOptions(),
    InstanceOptions(),
    SizeSettings(),
    WeightsOptions(),
    ThresholdOptions(),
    IRNWalkSettings(),
)


@add_options(*GROUPS)
def instances(
    config: common.Config = None,
    as_json: common.AsJson = False,
    **given: Any,
) -> None:
    """Find single objects from seeds, by IRN's displacements and random walk; needs weights of `camplug train irn`.

    Writes masks in COCO's run lengths: instances.json is a COCO data set, results.json a list of COCO results.
    If it is stopped, the same command continues; after a change of a seed or a photograph, its instances alone are
    made again.
    Under torchrun the processes share the images: torchrun --nproc-per-node 2 -m camplug instances ...
    Broken images, and those without a seed, are listed at the end, exit code 1.
    """
    with common.report_errors():
        from camplug.wsss.class_names import order_like_folder
        from camplug.wsss.data import open_images
        from camplug.wsss.data.run_lengths import import_pycocotools
        from camplug.wsss.pseudo import InstanceFolder, IRNWalk, make_instances
        from camplug.wsss.pseudo.walks import NO_DISPLACEMENTS
        from camplug.wsss.train.heads import load_heads

        values = read_options(given, config, *GROUPS)
        import_pycocotools()
        data, options = apply_values(DataOptions(), values), apply_values(InstanceOptions(), values)
        weights = apply_values(WeightsOptions(), values)
        if weights.weights is None:
            raise InputError("--weights is missing; `camplug train irn` makes them.")
        load_heads(weights.weights, kind="irn")  # raises for others
        source, made_with = open_seeds(apply_values(SeedsArgument(), values).seeds, data)
        dataset = open_images(data.get_data(), data.split, made_with.get("classes", ()))
        settings = apply_values(IRNWalkSettings(), values)
        walk_settings = make_walk_settings("irn", weights.weights, values)
        threshold, origin = choose_threshold(
            apply_values(ThresholdOptions(), values), walk_settings, source, dataset, "irn"
        )
        rank, _ = get_shard()
        network = load_walk_network(weights, common.choose_device(options.device, rank))
        if network.displacement is None:
            raise InputError(NO_DISPLACEMENTS)
        walk = IRNWalk(network, threshold, **asdict(settings))
        folder = InstanceFolder(options.out)
        dataset = order_like_folder(folder, dataset)
        stored: dict[str, Any] = {
            "smallest": options.smallest,
            "long_side": apply_values(SizeSettings(), values).long_side,
        }
        made_of = {"classes": list(dataset.classes), "seeds": made_with, "walk": walk_settings, "threshold": threshold}
        folder.prepare(made_of | stored, overwrite=options.overwrite)
        facts = describe_walk(walk_settings, threshold, origin)
        if rank == 0 and not as_json:
            common.out.print(common.escape_markup("\n".join(format_facts(facts))), soft_wrap=True)
        make = partial(make_instances, walk, dataset, source, folder, **stored)
        run_job("instances", "images", folder.path, len(dataset), make, as_json=as_json, facts=facts)
