"""Export of a segmentation network to ONNX and to torch.export, with normalisation and upsampling inside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError, ModelError
from camplug.images.save import write_atomically
from camplug.wsss.deeplab.network import DeepLab
from camplug.wsss.deeplab.segmenter import sample_grid

ExportFormat: TypeAlias = Literal["onnx", "torch"]
EXAMPLE = (150, 203)  # neither equal nor multiples of a stride, from which a dependence on the size could be concluded
OTHERS = ((96, 160), (129, 97))  # further sizes to check
TOLERANCE = 1e-3  # of the largest logit; other kernels add in another order


class PixelSegmenter(nn.Module):
    """Segmentation network from pixels to logits at their size: normalisation, padding, network, upsampling.

    Same as one view of `camplug.wsss.deeplab.Segmenter` at the photograph's size.

    Args:
        network: network.
    """

    def __init__(self, network: DeepLab) -> None:
        super().__init__()
        self.network = network

    @override
    def forward(self, pixels: Tensor) -> Tensor:
        """Compute logits [N,K+1,H,W] of photographs, uint8 [N,3,H,W]."""
        size = (pixels.shape[2], pixels.shape[3])
        stride = self.network.stride
        x = self.network.preprocess.normalize(pixels)
        x = F.pad(x, (0, -size[1] % stride, 0, -size[0] % stride), mode="replicate")
        return sample_grid(self.network(x).float(), size, (x.shape[2], x.shape[3]), size)


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes:
        path: path of the file.
        size: height and width that the file is fixed to; None if any size is taken.
        difference: largest difference to PyTorch's logits, over all sizes checked.
        largest: largest absolute logit.
        agreement: share of pixels with the same label.
    """

    path: str
    size: tuple[int, int] | None
    difference: float
    largest: float
    agreement: float


def export_network(
    network: DeepLab, path: str | os.PathLike[str], kind: ExportFormat, size: tuple[int, int] | None = None
) -> ExportReport:
    """Write a network for use without camplug, and compare its results with PyTorch's.

    The file maps "pixels", RGB uint8 [1,3,H,W], to "logits" float32 [1,K+1,H,W], background first. Photographs are to
    be resized before, as in training. The class names are in the file's metadata (ONNX: "classes"; torch.export: the
    extra file "classes.json").

    Args:
        network: network; it is moved to the CPU.
        path: path of the file.
        kind: "onnx", or "torch" for `torch.export.load`.
        size: height and width of the photographs; None takes any size.

    Raises:
        InputError: the file cannot be written, a package is missing, or the size is too small.
        ModelError: the network cannot be exported, or the file computes something else.
    """
    if kind == "onnx":
        _require_onnx()
    if size is not None and min(size) < 2:
        raise InputError(f"size={size}; give a height and a width of at least 2 pixels.")
    module = PixelSegmenter(network.cpu().float().eval())
    example = _make_pixels(EXAMPLE if size is None else size)
    free = None if size is not None else {"pixels": {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}}
    try:
        with torch.no_grad():
            module(example)  # fills caches with tensors before tracing
            program = torch.export.export(module, (example,), dynamic_shapes=free, strict=False)
            write, run = _prepare_onnx(program, network) if kind == "onnx" else _prepare_torch(program, network)
            report = _compare(module, run, (EXAMPLE, *OTHERS) if size is None else (size,))
    except Exception as error:  # exporters raise nearly anything
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "" if size is not None else "; with a fixed size (--size HEIGHT,WIDTH) it may be possible"
        raise ModelError(f"the network cannot be exported ({first.rstrip('.')}){hint}.") from error
    difference, largest, agreement = report
    if difference > TOLERANCE * max(1.0, largest):
        raise ModelError(
            f"the exported network differs from PyTorch by {difference:.3g} of {largest:.3g}; not written."
        )
    write_atomically(os.fspath(path), write)
    return ExportReport(os.fspath(path), size, difference, largest, agreement)


def _require_onnx() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError('ONNX needs onnxruntime and onnxscript: pip install "camplug[export]".') from None


def _make_pixels(size: tuple[int, int]) -> Tensor:
    """Make pixels [1,3,H,W] that change from place to place, always the same."""
    return torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


Prepared: TypeAlias = tuple[Callable[[Any], object], Callable[[Tensor], Tensor]]


def _prepare_onnx(program: Any, network: DeepLab) -> Prepared:
    """Return functions that write an exported program as ONNX, and run it."""
    import onnxruntime

    made: Any = torch.onnx.export(
        program, (), dynamo=True, input_names=["pixels"], output_names=["logits"], verbose=False
    )
    made.model.metadata_props["classes"] = json.dumps(network.classes)
    content = made.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(session.run(None, {"pixels": pixels.numpy()})[0]))

    return (lambda file: file.write(content)), run


def _prepare_torch(program: Any, network: DeepLab) -> Prepared:
    """Return functions that write an exported program, and run it."""
    names = {"classes.json": json.dumps(network.classes)}
    return (lambda file: torch.export.save(program, file, extra_files=names)), program.module()


def _compare(
    module: nn.Module, run: Callable[[Tensor], Tensor], sizes: tuple[tuple[int, int], ...]
) -> tuple[float, float, float]:
    """Return the largest difference of logits, the largest logit, and the share of equal labels."""
    difference = largest = 0.0
    equal = []
    for size in sizes:
        pixels = _make_pixels(size)
        wanted, found = module(pixels), run(pixels)
        difference = max(difference, float((found - wanted).abs().max()))
        largest = max(largest, float(wanted.abs().max()))
        equal.append((found.argmax(1) == wanted.argmax(1)).flatten())
    return difference, largest, float(torch.cat(equal).float().mean())
