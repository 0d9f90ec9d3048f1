"""Pixel-adaptive refinement (PAR): averages maps over neighbours of similar colour.

Values of two pixels spread over their colour and stop at the edge:

>>> edge = np.zeros((1, 8, 3), np.uint8)
>>> edge[:, 4:] = 255
>>> maps = np.array([[[0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]])
>>> pixel_adaptive_refinement(edge, maps, dilations=(1, 2), scale=1).round(1)
array([[[0.5, 0.5, 0.5, 0.5, 0. , 0. , 0. , 0. ]]])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from operator import index
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.fuse import resize_maps
from camplug.images.photo import read_photo
from camplug.plug import send_to
from camplug.wsss.crf.settings import PARSettings

MIN_DEVIATION = 1e-6  # deviations below, relative to the largest colour value, are rounding (8-bit steps are 0.004)

FLOATS = ("float16", "bfloat16", "float32", "float64")

A = TypeVar("A", NDArray[Any], Tensor)
Offset: TypeAlias = tuple[int, int]


@torch.no_grad()
def pixel_adaptive_refinement(
    photo: Any,
    maps: A,
    *,
    dilations: Sequence[int] = PARSettings.dilations,
    iterations: int = PARSettings.iterations,
    w1: float = PARSettings.w1,
    w2: float = PARSettings.w2,
    scale: float = PARSettings.scale,
) -> A:
    r"""Refine maps by repeated averages over neighbours, weighted by their similarity in colour.

    The neighbours j of a pixel i are the 8 around it at each dilation; the border is replicated. One step replaces
    every value by the sum of :math:`w_{ij} x_j`, without the pixel itself, with

    .. math:: w_{ij} = \frac{1}{1 + w_2} \left[ \mathrm{softmax}_j \Big( -\frac{1}{C} \sum_c
              \Big( \frac{|I_{ic} - I_{jc}|}{w_1 \sigma_{ic}} \Big)^2 \Big)
              + w_2 \, \mathrm{softmax}_j \Big( -\Big( \frac{|p_i - p_j|}{w_1 \sigma_p} \Big)^2 \Big) \right]

    where :math:`\sigma_{ic}` is the standard deviation (divisor n - 1) of channel c over the neighbours of i, and
    :math:`\sigma_p` that of their distances. This is PAR of Ru et al. (AFA, CVPR 2022), which refines the labels of
    ToCo (Ru et al., CVPR 2023), except for the factor 1 / (1 + w2): there the weights of a pixel sum to 1 + w2, and
    maps grow in each step. Here they sum to 1, so constants are preserved and values stay in their range; the strongest
    map at a pixel is the same. Maps are refined independently of each other.

    The scale of colours has no influence, nor has a channel that is equal in all neighbours. The weights take 4 bytes
    per neighbour and pixel (float32).

    Args:
        photo: path, PIL image, uint8 [H,W,3] or [H,W] (array or tensor), or floating-point tensor [C,H,W].
        maps: floats [K,H,W], an array or a tensor; K may be 0. Computed on its device, in float64 if it is float64,
            else in float32.
        dilations: distances of the neighbours, in pixels at `scale`.
        iterations: number of steps.
        w1: tolerance of colour differences in standard deviations, above 0.
        w2: weight of the distance relative to colour, 0 or more.
        scale: scale of the photograph at which maps are refined, in (0, 1], resized bilinearly. ToCo and its successors
            use 0.5.

    Returns:
        Maps [K,H,W], float32 or float64; an array for an array, a tensor on the same device for a tensor.

    Raises:
        InputError: the photograph cannot be read or has another size than the maps, values are not finite, or an option
            is out of its range.
    """
    PARSettings(cast(Any, dilations), iterations, w1, w2, scale)  # checks the ranges
    offsets = _list_offsets(dilations)
    planes = _check_maps(maps)
    colours = _load_colours(photo, planes)
    if planes.numel():
        size = (planes.shape[1], planes.shape[2])
        small = (max(1, int(size[0] * scale)), max(1, int(size[1] * scale)))
        weights = _compute_weights(resize_maps(colours, small), offsets, w1, w2)
        planes = resize_maps(planes, small)
        for _ in range(index(iterations)):
            planes = _average_neighbours(planes, offsets, weights)
        planes = resize_maps(planes, size)
    refined: A = planes.clone() if isinstance(maps, Tensor) else planes.numpy()
    return refined


def _list_offsets(dilations: Sequence[int]) -> list[Offset]:
    """List (dy, dx) of all neighbours, in the order of dilations."""
    steps = [step for step in product((-1, 0, 1), repeat=2) if step != (0, 0)]
    return [(dy * d, dx * d) for d in map(index, dilations) for dy, dx in steps]


def _compute_weights(colours: Tensor, offsets: list[Offset], w1: float, w2: float) -> Tensor:
    """Compute the weights of all neighbours of every pixel, [len(offsets),H,W]; they sum to 1."""
    distance = torch.tensor(offsets, dtype=colours.dtype).norm(dim=1)
    nearness = torch.softmax(-((distance / (w1 * distance.std())) ** 2), 0)
    nearness = send_to(nearness * (w2 / (1 + w2)), colours.device)
    colours = colours / colours.abs().max().clamp(min=torch.finfo(colours.dtype).tiny)
    spread = _compute_deviation(colours, offsets)
    # equal neighbours add one number to all exponents; the softmax cancels it, but rounding would lose the others
    sharpness = torch.where(spread > MIN_DEVIATION, 1 / (w1 * spread), 0)
    weights = colours.new_empty((len(offsets), *colours.shape[1:]))
    for weight, neighbour in zip(weights, _shift_planes(colours, offsets), strict=True):
        torch.mean(((neighbour - colours) * sharpness).square_().neg_(), 0, out=weight)
    weights -= weights.amax(0)  # softmax in place
    weights.exp_()
    weights /= weights.sum(0) * (1 + w2)
    weights += nearness.view(-1, 1, 1)
    return weights


def _compute_deviation(colours: Tensor, offsets: list[Offset]) -> Tensor:
    """Compute the standard deviation over the neighbours, [C,H,W], by Welford's recurrence."""
    mean, squares = torch.zeros_like(colours), torch.zeros_like(colours)
    for count, neighbour in enumerate(_shift_planes(colours, offsets), start=1):
        change = neighbour - mean
        mean.add_(change, alpha=1 / count)
        squares.addcmul_(change, neighbour - mean)
    return squares.div_(len(offsets) - 1).sqrt_()


def _average_neighbours(planes: Tensor, offsets: list[Offset], weights: Tensor) -> Tensor:
    total = torch.zeros_like(planes)
    for weight, neighbour in zip(weights, _shift_planes(planes, offsets), strict=True):
        total.addcmul_(neighbour, weight)
    return total


def _shift_planes(planes: Tensor, offsets: list[Offset]) -> Iterator[Tensor]:
    """Yield views [C,H,W] of the neighbours at each offset, of one copy with a replicated border."""
    h, w = planes.shape[1:]
    reach = max(dy for dy, _ in offsets)
    padded = F.pad(planes[None], [reach] * 4, mode="replicate")[0]
    for dy, dx in offsets:
        yield padded[:, reach + dy : reach + dy + h, reach + dx : reach + dx + w]


def _load_colours(photo: Any, planes: Tensor) -> Tensor:
    """Load the photograph as floating-point planes [C,H,W] on the device of the maps; check that the sizes agree."""
    colours = send_to(_load_pixels(photo), planes.device).to(planes)
    if colours.shape[1:] != planes.shape[1:]:
        raise InputError(
            f"the photograph is {colours.shape[1]}x{colours.shape[2]} and the maps are {planes.shape[1]}x"
            f"{planes.shape[2]} (rows x columns); resize the maps to the photograph's size."
        )
    return colours


def _load_pixels(photo: Any) -> Tensor:
    """Load the photograph as floating-point planes [C,H,W]."""
    if isinstance(photo, Tensor) and photo.is_floating_point() and photo.ndim == 3:
        if not photo.isfinite().all():
            raise InputError("the photograph holds nan or infinity; give finite pixels [C,H,W].")
        return photo.detach()
    if isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3:
        pixels = photo  # not `read_photo`, which refuses single rows and columns
    else:
        pixels = np.asarray(read_photo(photo))
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float()


def _check_maps(maps: Any) -> Tensor:
    """Check the maps and return them as float32 or float64, without a copy where possible."""
    values = maps if isinstance(maps, Tensor) else np.asarray(maps)
    kind = str(values.dtype).removeprefix("torch.")
    if values.ndim != 3 or kind not in FLOATS or 0 in values.shape[1:]:
        raise InputError(f"the maps are {kind} {list(values.shape)}; give floats [K,H,W].")
    planes = values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    if not planes.isfinite().all():
        raise InputError("the maps hold nan or infinity; give finite numbers (a map without evidence is 0).")
    return planes if kind == "float64" else planes.float()
