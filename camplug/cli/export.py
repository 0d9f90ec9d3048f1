"""Command `camplug export`: a segmentation network as ONNX or torch.export."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from camplug.cli import common
from camplug.errors import InputError


def export(
    network: Annotated[Path, typer.Argument(help="Network made by `camplug wsss run` or `camplug train deeplab`.")],
    onnx: Annotated[Path | None, typer.Option(help="File to write as ONNX.", show_default=False)] = None,
    torch_export: Annotated[Path | None, typer.Option(help="File to write for torch.export.load.")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="HEIGHT,WIDTH of the photographs; needed by networks that pad by the size of the image, such as "
            "EfficientNet-Lite0, whose export for any size takes many minutes.",
            show_default="any size",
        ),
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """Write a segmentation network for use without camplug, and compare its results with PyTorch's.

    The file takes RGB pixels, uint8 [1,3,H,W], and gives logits [1,K+1,H,W] at the same size, background first:
    normalisation and upsampling are inside, resizing is not. ONNX needs the extra export.
    """
    with common.report_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about their own code
        from camplug.wsss.deeplab.checkpoint import load_deeplab
        from camplug.wsss.deeplab.export import ExportFormat, export_network

        wanted: list[tuple[ExportFormat, Path]] = []
        wanted += [] if onnx is None else [("onnx", onnx)]
        wanted += [] if torch_export is None else [("torch", torch_export)]
        if not wanted:
            raise InputError("give a file to write: --onnx network.onnx, --torch-export network.pt2, or both.")
        if any(file.resolve() == network.resolve() for _, file in wanted):
            raise InputError(f"{str(network)!r} is the network itself; give another file to write.")
        fixed = None if size is None else _parse_size(size)
        found = load_deeplab(network)
        documents: list[dict[str, Any]] = []
        for kind, file in wanted:
            report = export_network(found, file, kind, fixed)
            documents.append({"format": kind, **vars(report)})
            if not as_json:
                takes = "any size" if fixed is None else f"{fixed[0]}x{fixed[1]} pixels (height x width)"
                text = (
                    f"{file}: takes {takes}; logits differ from PyTorch's by at most {report.difference:.2g} (the "
                    f"largest is {report.largest:.3g}), labels agree at {100 * report.agreement:.2f} % of the pixels."
                )
                common.out.print(common.escape_markup(text), soft_wrap=True)
        if as_json:
            common.print_json(documents)


def _parse_size(text: str) -> tuple[int, int]:
    """Return the height and width of "HEIGHT,WIDTH"."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise InputError(f"--size {text!r} is not understood; write HEIGHT,WIDTH, such as 240,320.")
    return int(parts[0]), int(parts[1])
