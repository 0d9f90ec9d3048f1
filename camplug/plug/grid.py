"""Rearrange layer outputs (feature maps, channels-last maps, tokens) as [N,C,h,w]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from camplug.errors import LayerError

Pair: TypeAlias = tuple[int, int]
Size: TypeAlias = tuple[int, ...]
"""Spatial size: (length,) of a signal, (height, width) of an image, (depth, height, width) of a volume."""
MapSize: TypeAlias = Size | list[Size]
"""Size of all maps, or a list with that of each image's maps."""
CONVOLUTIONS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
Spans: TypeAlias = dict[int, Pair]
"""Positions of the patch tokens by sequence length: {length: (first, count)}."""


@dataclass(frozen=True)
class Layout:
    """Arrangement of a layer's output on a grid.

    Attributes:
        order: dimensions of the output.
        h, w: height and width of the grid.
        first: position of the first patch token.
        others: number of tokens that are not patches.
    """

    order: Literal["NCHW", "NHWC", "NLC", "LNC"]
    h: int
    w: int
    first: int = 0
    others: int = 0

    def lay(self, tensor: Tensor) -> Tensor:
        """Return an output of this layout as [N,C,h,w]."""
        if self.order == "NCHW":
            return tensor
        if self.order == "NHWC":
            return tensor.permute(0, 3, 1, 2)
        if self.order == "LNC":
            tensor = tensor.transpose(0, 1)
        patches = tensor[:, self.first : self.first + self.h * self.w]
        return patches.transpose(1, 2).reshape(tensor.shape[0], tensor.shape[2], self.h, self.w)

    def pick(self, tensor: Tensor, dim: int) -> Tensor:
        """Return the patches of a dimension of tokens."""
        return tensor.narrow(dim, self.first, self.h * self.w)


def count_spatial_dims(model: nn.Module) -> int:
    """Return the number of spatial dimensions of the model's first convolution; 2 without one.

    >>> count_spatial_dims(nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU()))
    3
    """
    for module in model.modules():
        for kind, dims in CONVOLUTIONS.items():
            if isinstance(module, kind):
                return dims
    return 2


def get_patch_size(model: nn.Module) -> Pair | None:
    """Return the stride (height, width) of the patch convolution, the first `nn.Conv2d`; None without one."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            stride = module.stride
            return (int(stride[0]), int(stride[1]))
    return None


def find_size_multiple(model: nn.Module) -> int:
    """Return the number that both sides of the images must be multiples of: the patch side of a transformer of timm
    that takes images of any whole number of patches (`dynamic_img_size=True`), else 1."""
    for module in model.modules():
        if getattr(module, "dynamic_img_size", False) is True:
            patch = getattr(module, "patch_embed", None)
            if patch is not None and not getattr(patch, "dynamic_img_pad", False):
                return math.lcm(*(get_patch_size(module) or (1, 1)))
    return 1


def find_layout(
    shape: Sequence[int],
    image_size: Pair,
    patch: Pair | None,
    *,
    images: int | None = None,
    spans: Spans | None = None,
) -> Layout | None:
    """Find the arrangement of an output of this shape on the grid of the images.

    Recognised are [N,C,h,w]; [N,h,w,C] (Swin), if the inner two sizes have the image's aspect; and [N,L,C] or [L,N,C]
    (ViT) with h * w patch tokens, where (h, w) is the patch grid of the image or a half, quarter, ... of it.

    Args:
        shape: shape of the output.
        image_size: height and width of the model's input.
        patch: stride of the patch convolution, see `get_patch_size`; None if the model has none.
        images: number of images; default: the size of the first dimension.
        spans: positions of the patches in sequences with other tokens, as traced; None assumes up to 64 tokens before
            the patches.

    Returns:
        The layout; None if no arrangement fits, or the number of images differs.
    """
    if len(shape) == 4 and images in (None, shape[0]):
        first = measure_distortion(shape[2], shape[3], image_size)
        if first == 0 or measure_distortion(shape[1], shape[2], image_size) >= first:
            return Layout("NCHW", shape[2], shape[3])
        return Layout("NHWC", shape[1], shape[2])
    if len(shape) == 3 and images in (None, *shape[:2]):
        order: Literal["NLC", "LNC"] = "NLC" if images in (None, shape[0]) else "LNC"
        length = shape[1] if order == "NLC" else shape[0]
        found = _find_patches(length, image_size, patch, spans)
        if found is not None:
            first, (h, w) = found
            return Layout(order, h, w, first, length - h * w)
    return None


def to_grid(
    tensor: Tensor,
    image_size: Pair,
    patch: Pair | None,
    layer: str,
    *,
    images: int | None = None,
    spans: Spans | None = None,
) -> Tensor:
    """Return an activation or gradient as [N,C,h,w]; see `find_layout` for the arguments.

    Raises:
        LayerError: the number of images differs, no arrangement fits the shape, or it is ambiguous.
    """
    shape, wanted = _get_numbers(tensor.shape), images
    image_size = (_get_numbers(image_size)[0], _get_numbers(image_size)[1])
    if images is not None and images > 1 and len(shape) == 3 and shape[0] == shape[1] == images:
        raise LayerError(
            f"the layer {layer!r} puts out {shape} for {images} images, which may be {images} images or {images} "
            "tokens first; give another number of images at a time, or reshape= to lay it out."
        )
    found = find_layout(shape, image_size, patch, images=images, spans=spans)
    if found is not None:
        return found.lay(tensor)
    if wanted is not None and len(shape) in (3, 4) and wanted not in shape[: 5 - len(shape)]:
        raise LayerError(
            f"the layer {layer!r} puts out {shape[0]} maps for {wanted} image{'s'[: wanted > 1]}: its output {shape} "
            "holds parts of images (frames, windows, proposals) or several inputs, and not one map per image; choose "
            "another layer with layers=, or give reshape= to lay it out as [N,C,h,w]."
        )
    raise LayerError(
        f"the layer {layer!r} puts out {shape} for an image of {image_size[0]}x{image_size[1]}, which is neither a "
        f"feature map [N,C,h,w] nor tokens [N,L,C] on the image's patch grid{_describe_grid(image_size, patch)}; "
        "choose another layer with layers=, or give reshape= to lay it out."
    )


def _get_numbers(sizes: Sequence[Any]) -> list[int]:
    """Return sizes as numbers; symbolic ones, as in torch.export, by their example, so that they stay variable."""
    return [size if isinstance(size, int) else int(size.node.hint) for size in sizes]


def _describe_grid(image_size: Pair, patch: Pair | None) -> str:
    if patch is None:
        return ""
    return f" ({image_size[0] // patch[0]}x{image_size[1] // patch[1]}, or halves of it, and tokens known to be others)"


def measure_distortion(h: int, w: int, image_size: Pair) -> float:
    """Return the distance between the aspects of grid and image (0: equal up to one cell of rounding)."""
    wide = math.log((w * image_size[0]) / (h * image_size[1]))
    return max(0.0, abs(wide) - math.log1p(1 / min(h, w)))


def _find_patches(length: int, size: Pair, patch: Pair | None, spans: Spans | None) -> tuple[int, Pair] | None:
    """Return the position of the first patch token in a sequence, and the patch grid."""
    if spans is not None and length in spans:
        first, count = spans[length]
        grid = find_token_grid(count, size, patch)
        return None if grid is None else (first, grid)
    grid = find_token_grid(length, size, patch)
    if grid is not None or spans is not None or patch is None:
        return None if grid is None else (0, grid)
    for level, (h, w) in enumerate(_list_grids(size, patch)):
        # class, distillation and register tokens; later stages have at most a class token
        if 0 <= length - h * w <= (1 if level else 64):
            return length - h * w, (h, w)
    return None


def find_token_grid(count: int, size: Pair, patch: Pair | None) -> Pair | None:
    """Return the patch grid of an image, or a half, quarter, ... of it, with this many positions; None without one."""
    if patch is not None:
        return next((grid for grid in _list_grids(size, patch) if grid[0] * grid[1] == count), None)
    if count == 1:  # a pooled token
        return None
    h = round(math.sqrt(count * size[0] / size[1]))
    return (h, count // h) if h and count % h == 0 and measure_distortion(h, count // h, size) == 0 else None


def _list_grids(size: Pair, patch: Pair) -> list[Pair]:
    """List the patch grid of an image and its halves; also the grid without the incomplete patches at the border."""
    h, w = -(-size[0] // patch[0]), -(-size[1] // patch[1])
    grids = [(h, w)]
    if (size[0] // patch[0], size[1] // patch[1]) != (h, w):
        grids.append((size[0] // patch[0], size[1] // patch[1]))
    while h * w > 1:
        h, w = -(-h // 2), -(-w // 2)
        if h * w > 1:  # one token is pooled
            grids.append((h, w))
    return [g for g in grids if g[0] * g[1] > 0]
