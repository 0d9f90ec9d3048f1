"""Export of networks to ONNX and to torch.export, with normalisation inside, compared with PyTorch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError, ModelError
from camplug.images.preprocess import Preprocess
from camplug.images.save import write_atomically
from camplug.models.class_names import find_class_names
from camplug.models.preprocess import find_preprocess
from camplug.plug.outputs import find_logits

ExportFormat: TypeAlias = Literal["onnx", "torch"]
TOLERANCE = 1e-3  # of the largest logit; other kernels add in another order
GREY = (19595, 38470, 7471)  # ITU-R 601 in 2^-16, as Pillow converts
CHECKED = 4  # images that a classifier is compared on


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes:
        path: path of the file.
        size: height and width that the file is fixed to; None if any size is taken.
        difference: largest difference to PyTorch's logits, over all inputs checked.
        largest: largest absolute logit.
        agreement: share of pixels, or of images, with the same label.
    """

    path: str
    size: tuple[int, int] | None
    difference: float
    largest: float
    agreement: float


class PixelClassifier(nn.Module):
    """Classifier from pixels to logits: normalisation, also to grey, and the model.

    Args:
        model: classifier.
        preprocess: its preprocessing.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.model, self.preprocess = model, preprocess

    @override
    def forward(self, pixels: Tensor) -> Tensor:
        """Compute logits [N,K] of photographs, uint8 [N,3,H,W]."""
        if self.preprocess.channels == 1:
            weights = torch.tensor(GREY, device=pixels.device)[:, None, None]
            pixels = ((pixels.int() * weights).sum(1, keepdim=True) + (1 << 15)) >> 16
        logits = find_logits(self.model(self.preprocess.normalize(pixels)))
        if logits is None or logits.ndim != 2:
            raise ModelError("the model has no logits [N,K]; give a classifier.")
        return logits.float()


def export_classifier(
    model: nn.Module,
    path: str | os.PathLike[str],
    kind: ExportFormat,
    size: tuple[int, int] | None = None,
    *,
    preprocess: Preprocess | None = None,
) -> ExportReport:
    """Write a classifier for use without camplug, and compare its results with PyTorch's.

    The file maps "pixels", RGB uint8 [1,3,H,W], to "logits" float32 [1,K]. Photographs are to be resized before. The
    class names, where the model has some, are in the file's metadata as in `export_module`.

    Args:
        model: classifier; it is moved to the CPU.
        path: path of the file.
        kind: "onnx", or "torch" for `torch.export.load`.
        size: height and width of the photographs; None takes the model's own.
        preprocess: preprocessing in place of the model's own.

    Raises:
        InputError: the preprocessing is a function of one's own, or see `export_module`.
        ModelError: see `export_module`.
    """
    reads = find_preprocess(model) if preprocess is None else preprocess
    if not isinstance(reads, Preprocess) or reads.channels not in (1, 3):
        raise InputError("the model does not read photographs by a camplug.Preprocess with 1 or 3 channels.")
    fixed = reads.size if size is None else size
    module = PixelClassifier(model.cpu().float().eval(), reads)
    inputs = [make_pixels(fixed, seed) for seed in range(CHECKED)]
    return export_module(module, inputs, find_class_names(model), path, kind, size=fixed)


def export_module(
    module: nn.Module,
    inputs: Sequence[Tensor],
    classes: Sequence[str] | None,
    path: str | os.PathLike[str],
    kind: ExportFormat,
    *,
    size: tuple[int, int] | None,
) -> ExportReport:
    """Write a module from "pixels", uint8 [1,3,H,W], to "logits", and compare its results with PyTorch's.

    Args:
        module: module on the CPU.
        inputs: inputs to compare on, of which the first is traced.
        classes: class names for the file's metadata (ONNX: "classes"; torch.export: the extra file "classes.json").
        path: path of the file.
        kind: "onnx", or "torch" for `torch.export.load`.
        size: height and width of the inputs; None takes any size.

    Raises:
        InputError: the file cannot be written, a package is missing, or the size is too small.
        ModelError: the module cannot be exported, or the file computes something else.
    """
    if kind == "onnx":
        _require_onnx()
    if size is not None and min(size) < 2:
        raise InputError(f"size={size}; give a height and a width of at least 2 pixels.")
    free = None if size is not None else {"pixels": {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}}
    names = [] if classes is None else [*classes]
    try:
        with torch.no_grad():
            module(inputs[0])  # fills caches with tensors before tracing
            program = torch.export.export(module, (inputs[0],), dynamic_shapes=free, strict=False)
            write, run = _prepare_onnx(program, names) if kind == "onnx" else _prepare_torch(program, names)
            report = _compare(module, run, inputs)
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


def make_pixels(size: tuple[int, int], seed: int = 0) -> Tensor:
    """Make pixels [1,3,H,W] that change from place to place, always the same for a seed."""
    return torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _require_onnx() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError('ONNX needs onnxruntime and onnxscript: pip install "camplug[export]".') from None


Prepared: TypeAlias = tuple[Callable[[Any], object], Callable[[Tensor], Tensor]]


def _prepare_onnx(program: Any, classes: Sequence[str]) -> Prepared:
    """Return functions that write an exported program as ONNX, and run it."""
    import onnxruntime

    made: Any = torch.onnx.export(
        program, (), dynamo=True, input_names=["pixels"], output_names=["logits"], verbose=False
    )
    made.model.metadata_props["classes"] = json.dumps(classes)
    content = made.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(session.run(None, {"pixels": pixels.numpy()})[0]))

    return (lambda file: file.write(content)), run


def _prepare_torch(program: Any, classes: Sequence[str]) -> Prepared:
    """Return functions that write an exported program, and run it."""
    names = {"classes.json": json.dumps(classes)}
    return (lambda file: torch.export.save(program, file, extra_files=names)), program.module()


def _compare(
    module: nn.Module, run: Callable[[Tensor], Tensor], inputs: Sequence[Tensor]
) -> tuple[float, float, float]:
    """Return the largest difference of logits, the largest logit, and the share of equal labels."""
    difference = largest = 0.0
    equal = []
    for pixels in inputs:
        wanted, found = module(pixels), run(pixels)
        difference = max(difference, float((found - wanted).abs().max()))
        largest = max(largest, float(wanted.abs().max()))
        equal.append((found.argmax(1) == wanted.argmax(1)).flatten())
    return difference, largest, float(torch.cat(equal).float().mean())
