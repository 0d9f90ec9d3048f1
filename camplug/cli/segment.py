"""Command `camplug segment`: label pictures of a data set by a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from camplug.cli import common
from camplug.cli.crf_options import CRFOptions
from camplug.cli.jobs import run_job
from camplug.cli.label_overlays import check_overlays, write_overlays
from camplug.cli.option_groups import DataOptions
from camplug.cli.options import add_options, read_options
from camplug.errors import InputError
from camplug.plug import resolve_device
from camplug.settings import apply_values
from camplug.wsss.deeplab.settings import SegmenterSettings
from camplug.wsss.seeds.predicted_labels import PROBABILITY, check_probability, predict_labels
from camplug.wsss.store.processes import get_shard

if TYPE_CHECKING:
    from camplug.wsss.data import SegmentationData


@dataclass(frozen=True)
class SegmentOptions:
    """Network, classes and folder of the label pictures.

    Raises:
        InputError: options of predicted labels without them, or no probability.
    """

    weights: Annotated[
        Path | None,
        typer.Option("--weights", "-w", help="Network made by `camplug wsss run` or `camplug train deeplab`."),
    ] = None
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the label pictures.")] = Path("predictions")
    overwrite: common.Overwrite = False
    labels: Annotated[
        Literal["none", "given", "predicted"],
        typer.Option(
            help="given: only the classes of the image labels, to make better pseudo-labels of training images; "
            "predicted: only those that --classifier finds in the photograph; none: all classes."
        ),
    ] = "none"
    classifier: Annotated[
        str | None,
        typer.Option(help="For --labels predicted: a classifier.pt, or a model as for `camplug explain`."),
    ] = None
    probability: common.Probability = None
    device: common.BestDevice = None
    overlays: Annotated[
        Path | None, typer.Option(help="Folder for pictures of the labels over the photographs, with a legend.")
    ] = None

    def __post_init__(self) -> None:
        if (self.labels == "predicted") != (self.classifier is not None):
            raise InputError("--labels predicted and --classifier go together; give both, or neither.")
        if self.labels != "predicted" and self.probability is not None:
            raise InputError("--probability has no effect without --labels predicted; add that, or leave it out.")
        if self.probability is not None:
            check_probability(self.probability)

    def get_weights(self) -> Path:
        """Return the file of the network.

        Raises:
            InputError: it is not given.
        """
        if self.weights is None:
            raise InputError("--weights is missing; give the deeplab.pt that `camplug train deeplab` has written.")
        return self.weights


GROUPS = DataOptions(), SegmentOptions(), SegmenterSettings(), CRFOptions(crf="none")


@add_options(*GROUPS)
def segment(
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Photographs without labels, folders or patterns of them; or --data.", show_default=False),
    ] = None,
    config: common.Config = None,
    as_json: common.AsJson = False,
    **given: Any,
) -> None:
    """Make label pictures of photographs or of a data set with a segmentation network; `camplug evaluate` scores them.

    Writes palette PNGs, and pictures to look at with --overlays. If it is stopped, the same command continues;
    after a change of a photograph, its labels alone are made again.
    Under torchrun the processes share the images: torchrun --nproc-per-node 2 -m camplug segment ...
    Broken images are listed at the end, exit code 1.
    """
    with common.report_errors():
        from camplug.wsss.class_names import order_like_folder
        from camplug.wsss.deeplab.checkpoint import load_deeplab
        from camplug.wsss.deeplab.segmenter import Segmenter, prepare_predictions
        from camplug.wsss.pseudo import LabelFolder
        from camplug.wsss.store.identity import make_file_digest

        values = read_options(given, config, *GROUPS)
        data, options = apply_values(DataOptions(), values), apply_values(SegmentOptions(), values)
        file = options.get_weights()
        if options.overlays is not None:
            check_overlays(options.overlays, options.out)
        if bool(photos) == (data.data is not None):
            raise InputError(
                "give either photographs, as in camplug segment a.jpg b.jpg, or --data, as in --data "
                "voc:VOCdevkit/VOC2012 --split val."
            )
        if photos and data.split is not None:
            raise InputError("--split names a part of --data and has no effect on photographs; leave it out.")
        device = common.choose_device(options.device, get_shard()[0])
        network = load_deeplab(file).to(resolve_device(device))
        dataset = _open_images(photos, data, network.classes)
        if options.labels == "given" and not dataset.has_labels:
            raise InputError("--labels given needs image labels, and the data has none; leave it out.")
        crf = apply_values(CRFOptions(crf="none"), values).make_settings()
        segmenter = Segmenter(network, **vars(apply_values(SegmenterSettings(), values)), crf=crf)
        labels = None if options.labels == "none" else {"labels": options.labels}
        if options.labels == "predicted":
            dataset, labels = _predict_labels(dataset, options, device)
        dataset = order_like_folder(folder := LabelFolder(options.out), dataset)

        def open_folder(made_of: dict[str, Any]) -> LabelFolder:
            return folder.prepare(made_of | {"classes": list(dataset.classes)}, overwrite=options.overwrite)

        weights = make_file_digest(file, "network")
        make = prepare_predictions(segmenter, dataset, open_folder, weights=weights, labels=labels)
        overlays = options.overlays
        draw = None if overlays is None else partial(write_overlays, overlays, dataset, folder, get_shard())
        run_job("segment", "labels", folder.path, len(dataset), make, as_json=as_json, finish=draw)


def _predict_labels(
    dataset: SegmentationData, options: SegmentOptions, device: str
) -> tuple[SegmentationData, dict[str, Any]]:
    """Return a data set with the labels that the classifier predicts, and what identifies these labels."""
    from camplug.wsss.store.identity import make_network_settings

    name = str(options.classifier)
    network = common.load_network(name, None, None, device)
    probability = PROBABILITY if options.probability is None else options.probability
    return predict_labels(dataset, network, make_network_settings(network, name), probability)


def _open_images(photos: list[Path] | None, data: DataOptions, classes: Sequence[str]) -> SegmentationData:
    """Open photographs or a data set, with the classes of the network."""
    from camplug.wsss.class_names import match_classes
    from camplug.wsss.data import Photographs, open_images

    if photos:
        return Photographs(photos, classes)
    dataset = open_images(data.get_data(), data.split, classes)
    match_classes(classes, dataset.classes, "the network")
    return dataset
