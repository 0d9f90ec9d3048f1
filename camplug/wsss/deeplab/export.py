"""Export of a segmentation network to ONNX and to torch.export, with normalisation and upsampling inside."""

from __future__ import annotations

import os

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from camplug.models.export import ExportFormat, ExportReport, export_module, make_pixels
from camplug.wsss.deeplab.network import DeepLab
from camplug.wsss.deeplab.segmenter import sample_grid

EXAMPLE = (150, 203)  # neither equal nor multiples of a stride, from which a dependence on the size could be concluded
OTHERS = ((96, 160), (129, 97))  # further sizes to check


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


def export_network(
    network: DeepLab, path: str | os.PathLike[str], kind: ExportFormat, size: tuple[int, int] | None = None
) -> ExportReport:
    """Write a network for use without camplug, and compare its results with PyTorch's.

    The file maps "pixels", RGB uint8 [1,3,H,W], to "logits" float32 [1,K+1,H,W], background first. Photographs are to
    be resized before, as in training.

    Args:
        network: network; it is moved to the CPU.
        path: path of the file.
        kind: "onnx", or "torch" for `torch.export.load`.
        size: height and width of the photographs; None takes any size.

    Raises:
        InputError, ModelError: see `camplug.models.export.export_module`.
    """
    module = PixelSegmenter(network.cpu().float().eval())
    sizes = (EXAMPLE, *OTHERS) if size is None else (size,)
    return export_module(module, [make_pixels(one) for one in sizes], network.classes, path, kind, size=size)
