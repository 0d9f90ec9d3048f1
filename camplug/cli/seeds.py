"""Command `camplug seeds`: the activation maps of a whole data set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from camplug.cli import common
from camplug.cli.explanations import make_explainer_options
from camplug.cli.jobs import run_job
from camplug.cli.option_groups import DataOptions, NetworkOptions
from camplug.cli.options import add_options, read_options
from camplug.errors import InputError
from camplug.explain import create
from camplug.settings import apply_values
from camplug.wsss.seeds.predicted_labels import PROBABILITY, check_probability
from camplug.wsss.seeds.settings import SeedSettings


@dataclass(frozen=True)
class SeedsOptions:
    """Folder and classes of seeds.

    Raises:
        InputError: a probability that is out of range or has no effect.
    """

    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the seeds.")] = Path("seeds")
    overwrite: common.Overwrite = False
    labels: Annotated[
        Literal["given", "predicted"],
        typer.Option(
            help="Classes to explain: those of the image labels (given), or those that the model finds (predicted), "
            "for photographs without labels."
        ),
    ] = "given"
    probability: common.Probability = None

    def __post_init__(self) -> None:
        if self.labels == "given" and self.probability is not None:
            raise InputError("--probability has no effect on given labels; add --labels predicted, or leave it out.")
        if self.probability is not None:
            check_probability(self.probability)

    @property
    def predicted(self) -> float | None:
        """Probability above which classes are explained; None for the image labels."""
        if self.labels == "given":
            return None
        return PROBABILITY if self.probability is None else self.probability


SETTINGS = SeedSettings(explainer="FullyCAM")
GROUPS = DataOptions(), SETTINGS, SeedsOptions(), NetworkOptions(), common.PromptOptions()


@add_options(*GROUPS)
def seeds(
    config: common.Config = None,
    as_json: common.AsJson = False,
    **given: Any,
) -> None:
    """Make the maps of a data set's images for the classes that they are labelled with, or that are predicted, as .npz.

    If it is stopped, the same command continues; after a change of a photograph or of its labels, its seed alone
    is made again.
    Under torchrun the processes share the images: torchrun --nproc-per-node 2 -m camplug seeds ...
    Broken images are listed at the end, exit code 1.
    """
    with common.report_errors():
        from camplug.models.class_names import find_class_names
        from camplug.wsss.class_names import order_like_folder
        from camplug.wsss.data import Photographs, open_data, open_images
        from camplug.wsss.seeds import SeedFolder, find_output_names, prepare_seeds
        from camplug.wsss.store.identity import make_network_settings

        values = read_options(given, config, *GROUPS)
        data, settings = apply_values(DataOptions(), values), apply_values(SETTINGS, values)
        options, network = apply_values(SeedsOptions(), values), apply_values(NetworkOptions(), values)
        dataset = (open_data if options.predicted is None else open_images)(data.get_data(), data.split)
        net = network.load(prompts=apply_values(common.PromptOptions(), values))
        reads = make_explainer_options(net, None, network.mean, network.std, settings.long_side)
        explainer = create(settings.explainer, net, **reads)
        if isinstance(dataset, Photographs):
            dataset = dataset.with_classes(find_output_names(explainer, dataset))
        folder = SeedFolder(options.out)
        if find_class_names(explainer.model, class_names=explainer.class_names) is not None:
            dataset = order_like_folder(folder, dataset)  # without names the data's order is the model's
        make = prepare_seeds(
            explainer,
            settings,
            dataset,
            partial(folder.prepare, overwrite=options.overwrite),
            network=make_network_settings(net, network.model, network.num_classes) | network.colours,
            predicted=options.predicted,
        )
        run_job("seeds", "seeds", folder.path, len(dataset), make, as_json=as_json)
