"""Lay whatever a layer puts out on a grid [N,C,h,w]: tokens, channels-last maps, prefix tokens dropped."""

from __future__ import annotations

import math

from torch import Tensor, nn

from camplug.errors import LayerError


def patch_size(model: nn.Module) -> tuple[int, int] | None:
    """Stride (height and width, in pixels) of the convolution that cuts the patches: the first `nn.Conv2d`."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            stride = module.stride
            return (int(stride[0]), int(stride[1]))
    return None


def to_grid(tensor: Tensor, image_size: tuple[int, int], patch: tuple[int, int] | None, layer: str) -> Tensor:
    """View an activation or gradient as [N,C,h,w].

    [N,C,h,w] stays; [N,h,w,C] (Swin) is recognised because only there the inner two sizes have the image's shape;
    [N,L,C] (ViT) is cut into L - h*w prefix tokens, dropped, and h*w patch tokens, where (h, w) is the patch grid of
    the image, halved as often as needed.

    Args:
        tensor: what the layer put out, batch first.
        image_size: height and width of the model's input.
        patch: stride of the patch convolution, see `patch_size`; None if the model has none.
        layer: its name, for the error.

    Raises:
        LayerError: the shape cannot be laid on a grid of the image's shape.
    """
    if tensor.ndim == 4:
        first = _distortion(tensor.shape[2], tensor.shape[3], image_size)
        if first == 0 or _distortion(tensor.shape[1], tensor.shape[2], image_size) >= first:
            return tensor
        return tensor.permute(0, 3, 1, 2)
    if tensor.ndim == 3:
        grid = _token_grid(tensor.shape[1], image_size, patch)
        if grid is not None:
            h, w = grid
            patches = tensor[:, tensor.shape[1] - h * w :]
            return patches.transpose(1, 2).reshape(tensor.shape[0], tensor.shape[2], h, w)
    raise LayerError(
        f"the layer {layer!r} puts out {list(tensor.shape)} for an image of {image_size[0]}x{image_size[1]}, which is "
        "neither a feature map [N,C,h,w] nor tokens [N,L,C] on the image's patch grid; choose another layer with "
        "layers=, or give reshape= to lay it out."
    )


def _distortion(h: int, w: int, image_size: tuple[int, int]) -> float:
    """How far the grid's aspect is from the image's (0 = equal), forgiving one cell of rounding."""
    wide = math.log((w * image_size[0]) / (h * image_size[1]))
    return max(0.0, abs(wide) - math.log1p(1 / min(h, w)))


def _token_grid(length: int, image_size: tuple[int, int], patch: tuple[int, int] | None) -> tuple[int, int] | None:
    if patch is not None:
        h, w = -(-image_size[0] // patch[0]), -(-image_size[1] // patch[1])
        if image_size[0] % patch[0] and h * w > length:  # valid convolution drops the rest of the image
            h, w = image_size[0] // patch[0], image_size[1] // patch[1]
        prefix = 64  # class, distillation and register tokens; later stages keep at most the class token
        while h * w > length and h * w > 1:
            h, w, prefix = -(-h // 2), -(-w // 2), 1
        return (h, w) if 0 <= length - h * w <= prefix else None
    h = round(math.sqrt(length * image_size[0] / image_size[1]))
    return (h, length // h) if h and length % h == 0 else None
