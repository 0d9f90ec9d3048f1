"""Command `camplug export`: a segmentation network or a classifier as ONNX or torch.export."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camplug.cli import common
from camplug.cli.explanations import make_explainer_options
from camplug.cli.options import add_options, read_options
from camplug.errors import InputError
from camplug.settings import apply_values

if TYPE_CHECKING:
    from camplug.models.export import ExportFormat, ExportReport


@dataclass(frozen=True)
class ClassifierOptions:
    """Options of a classifier that is no file of a training."""

    checkpoint: common.Checkpoint = None
    num_classes: common.NumClasses = None
    mean: Annotated[common.Colour | None, typer.Option(help=common.MEAN_HELP)] = None
    std: Annotated[common.Colour | None, typer.Option(help=common.STD_HELP)] = None

    def __post_init__(self) -> None:
        common.check_num_classes(self.num_classes)


@add_options(ClassifierOptions())
def export(
    network: Annotated[
        str, typer.Argument(help="File made by `camplug wsss run` or `camplug train`, or a model: " + common.MODEL_HELP)
    ],
    onnx: Annotated[Path | None, typer.Option(help="File to write as ONNX.", show_default=False)] = None,
    torch_export: Annotated[Path | None, typer.Option(help="File to write for torch.export.load.")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="HEIGHT,WIDTH of the photographs; needed by segmentation networks that pad by the size of the image, "
            "such as EfficientNet-Lite0, whose export for any size takes many minutes.",
            show_default="any size; a classifier's own",
        ),
    ] = None,
    as_json: common.AsJson = False,
    **given: Any,
) -> None:
    """Write a segmentation network or a classifier for use without camplug, and compare its results with PyTorch's.

    The file takes RGB pixels, uint8 [1,3,H,W]; normalisation is inside, resizing is not. Segmentation networks give
    logits [1,K+1,H,W] at the same size, background first, classifiers logits [1,K]. ONNX needs the extra export.
    """
    with common.report_errors():
        wanted: list[tuple[ExportFormat, Path]] = []
        wanted += [] if onnx is None else [("onnx", onnx)]
        wanted += [] if torch_export is None else [("torch", torch_export)]
        if not wanted:
            raise InputError("give a file to write: --onnx network.onnx, --torch-export network.pt2, or both.")
        if any(file.resolve() == Path(network).resolve() for _, file in wanted):
            raise InputError(f"{network!r} is the network itself; give another file to write.")
        fixed = None if size is None else _parse_size(size)
        write, what = _prepare(network, read_options(given, None, ClassifierOptions()))
        documents: list[dict[str, Any]] = []
        for kind, file in wanted:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the exporters, about their own code
                report = write(file, kind, fixed)
            documents.append({"format": kind, **vars(report)})
            if not as_json:
                common.out.print(common.escape_markup(_describe(report, what)), soft_wrap=True)
        if as_json:
            common.print_json(documents)


def _prepare(network: str, given: Mapping[str, Any]) -> tuple[Callable[..., ExportReport], str]:
    """Load a network; return the function that writes it, and what its labels are of."""
    from camplug.models import FILES
    from camplug.models.export import export_classifier
    from camplug.wsss.deeplab.checkpoint import DEEPLAB_FILE, load_deeplab
    from camplug.wsss.deeplab.export import export_network

    if network.endswith(FILES) and DEEPLAB_FILE.read(network) is not None:
        if given:
            name = next(iter(given)).replace("_", "-")
            raise InputError(f"--{name} has no effect on {network!r}, a segmentation network; leave it out.")
        return partial(export_network, load_deeplab(network)), "pixels"
    options = apply_values(ClassifierOptions(), given)
    model = common.load_network(network, options.checkpoint, options.num_classes, "cpu")
    reads = make_explainer_options(model, None, options.mean, options.std).get("preprocess")
    return partial(export_classifier, model, preprocess=reads), "images"


def _describe(report: ExportReport, what: str) -> str:
    takes = "any size" if report.size is None else f"{report.size[0]}x{report.size[1]} pixels (height x width)"
    return (
        f"{report.path}: takes {takes}; logits differ from PyTorch's by at most {report.difference:.2g} (the largest "
        f"is {report.largest:.3g}), labels agree at {100 * report.agreement:.2f} % of the {what} checked."
    )


def _parse_size(text: str) -> tuple[int, int]:
    """Return the height and width of "HEIGHT,WIDTH"."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise InputError(f"--size {text!r} is not understood; write HEIGHT,WIDTH, such as 240,320.")
    return int(parts[0]), int(parts[1])
