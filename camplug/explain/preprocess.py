"""From a photograph to what the model reads, and back: which part of the photograph the tensor shows."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.plug import named_layers, unwrap
from camplug.plug.layers import token_layers

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LONGEST = 4  # sides in a ratio beyond this are squeezed to it, so that a panorama costs no more than four squares


class Box(NamedTuple):
    """A part of a photograph in pixels; right and bottom are outside."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Preprocess:
    """Resize without cropping, scale to [0, 1], subtract the mean, divide by the standard deviation.

    Args:
        size: height and width in pixels that the model was made for.
        mean, std: per channel, for values in [0, 1].
        interpolation: "bilinear", "bicubic", "nearest" or "lanczos".
        keep_aspect: the shorter side becomes that of `size` and the photograph keeps its shape; otherwise it is
            squeezed into exactly `size` (for models that take no other).
        long_side: the longer side becomes this many pixels and the photograph keeps its shape, whatever `size` says.

    Raises:
        InputError: `long_side` for a model that takes one size only, or below 1.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    keep_aspect: bool = True
    long_side: int | None = None

    def __post_init__(self) -> None:
        if self.long_side is not None and self.long_side < 1:
            raise InputError(f"a long side of {self.long_side} pixels is not possible; give at least 1.")
        if self.long_side is not None and not self.keep_aspect:
            raise InputError(
                f"the model takes images of {self.size[0]}x{self.size[1]} pixels only; leave the long side out."
            )

    def __call__(self, photo: Image) -> tuple[Tensor, Box]:
        """The tensor [3,H,W] and the part of the photograph that it shows, which is all of it."""
        from PIL import Image as pil

        width, height = photo.size
        out_h, out_w = self.size
        if self.long_side is not None:
            scale = self.long_side / max(width, height)
            out_h, out_w = max(1, round(height * scale)), max(1, round(width * scale))
        elif self.keep_aspect:
            scale = max(out_h / height, out_w / width)
            out_h = min(max(1, round(height * scale)), LONGEST * out_h)
            out_w = min(max(1, round(width * scale)), LONGEST * out_w)
        resample = getattr(pil.Resampling, self.interpolation.upper(), pil.Resampling.BILINEAR)
        pixels = np.asarray(photo.resize((out_w, out_h), resample))
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div_(255)
        x = (x - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]
        return x, Box(0, 0, width, height)


@dataclass(frozen=True)
class Custom:
    """Somebody's own transform; the geometry is found by sending pictures of the coordinates through it."""

    transform: Callable[[Any], Any]

    def __call__(self, photo: Image) -> tuple[Tensor, Box]:
        """The transform's tensor [3,H,W] and the part of the photograph that it shows.

        Raises:
            InputError: the transform gives something else.
        """
        x = self.transform(photo)
        if not isinstance(x, Tensor) or x.ndim != 3 or not x.is_floating_point():
            got = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"transform= must turn a PIL image into a float tensor [3,H,W]; it gave {got}.")
        return x, find_box(self.transform, photo.size)


def find_box(transform: Callable[[Any], Any], size: tuple[int, int]) -> Box:
    """The part of a photograph of this size (width, height) that a transform lets through.

    Black, white and a ramp in each direction go through the transform; black and white undo whatever it does to
    values, and a line through each ramp gives the coordinates of the first and last pixel. Holds for resizing and
    cropping in any order; a transform that rotates, mirrors, pads or draws at random is told of by a warning.
    """
    from PIL import Image as pil

    width, height = size
    x, y = (np.arange(n) + 0.5 for n in size)

    def through(pixels: np.ndarray[Any, Any]) -> Tensor:
        rgb = np.repeat(pixels.round().astype(np.uint8)[:, :, None], 3, axis=2)
        return torch.as_tensor(transform(pil.fromarray(rgb))).double().mean(0)

    before = _random_state()
    black = through(np.zeros((height, width)))
    draws = _random_state() != before  # the picture and the ramps would go different ways
    white = through(np.full((height, width), 255.0))
    span = torch.where((white - black).abs() > 1e-9, white - black, torch.full_like(black, torch.nan))
    across = (through(np.broadcast_to(255 * x / width, (height, width))) - black) / span
    down = (through(np.broadcast_to((255 * y / height)[:, None], (height, width))) - black) / span
    left, right, error_x = _line(across.mean(0), width)
    top, bottom, error_y = _line(down.mean(1), height)
    shears = max(float(across.std(0).max()), float(down.std(1).max())) if min(black.shape) > 1 else 0.0
    wide, high = 0.01 * width + 1, 0.01 * height + 1  # what eight bits can tell
    straight = all(error < 0.05 for error in (error_x, error_y, shears))
    if draws or not (straight and -wide < left < right < width + wide and -high < top < bottom < height + high):
        warnings.warn(
            "the transform does more than resize and crop (it rotates, mirrors, pads, distorts or draws at random); "
            "the map is laid over the whole photograph and may be off.",
            stacklevel=2,
        )
        return Box(0, 0, width, height)
    if abs(left) < wide and abs(right - width) < wide:
        left, right = 0, width
    if abs(top) < high and abs(bottom - height) < high:
        top, bottom = 0, height
    return Box(left, top, right, bottom)


def _line(values: Tensor, length: int) -> tuple[float, float, float]:
    """Fit positions (as fractions of `length`) against pixel centres; the edges, and how badly it fits."""
    n = len(values)
    if n < 4:
        return 0.0, float(length), 0.0
    centres = np.arange(n) + 0.5
    inner = slice(n // 10, n - n // 10)  # resampling bends the ramp at the borders
    slope, start = map(float, np.polyfit(centres[inner], values.numpy()[inner], 1))
    error = float(np.abs(start + slope * centres - values.numpy()).max())
    return start * length, (start + slope * n) * length, error


def _random_state() -> tuple[Any, ...]:
    """The states of the generators that transforms draw from."""
    mersenne: Any = np.random.get_state()
    return random.getstate(), mersenne[1].tobytes(), mersenne[2], torch.get_rng_state().numpy().tobytes()


_warned = False


def preprocess_of(model: nn.Module, transform: Any = None) -> Preprocess | Custom:
    """The preprocessing that a model wants.

    A given `transform` comes first: a torchvision preset (`weights.transforms()`) is read, so that its numbers hold
    and its centre crop does not cut the photograph; any other callable is used as it is. Else the model's own:
    timm's `pretrained_cfg`, or an attribute `transforms` or `weights` with torchvision's. Else ImageNet's, with one
    warning. Transformers of one input size get the photograph squeezed into it, other models in its own shape.
    """
    if isinstance(transform, (Preprocess, Custom)):
        return transform
    inner = unwrap(model)
    flexible = not token_layers(inner, named_layers(inner))
    weights: Any = getattr(inner, "weights", None)
    presets: list[Any] = [transform, getattr(inner, "transforms", None)]
    presets.append(weights.transforms() if hasattr(weights, "transforms") else None)
    for preset in presets:
        if all(hasattr(preset, name) for name in ("crop_size", "mean", "std", "interpolation")):
            side = int(preset.crop_size[0])
            mode = str(getattr(preset.interpolation, "value", preset.interpolation))
            return Preprocess((side, side), tuple(preset.mean), tuple(preset.std), mode, flexible)
    if transform is not None:
        if not callable(transform):
            raise InputError(f"transform= must be callable on a PIL image; got {type(transform).__name__}.")
        return Custom(transform)
    config = getattr(inner, "pretrained_cfg", None) or getattr(inner, "default_cfg", None)
    if config:
        config = config if isinstance(config, dict) else config.to_dict()
        size = tuple(config.get("input_size") or (3, 224, 224))[1:]
        return Preprocess(
            (int(size[0]), int(size[1])),
            tuple(config.get("mean") or IMAGENET_MEAN),
            tuple(config.get("std") or IMAGENET_STD),
            config.get("interpolation") or "bilinear",
            flexible and not config.get("fixed_input_size", False),
        )
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "the model does not say how it wants its images; ImageNet's mean and standard deviation and 224 pixels are "
            "assumed. Give transform= to say otherwise.",
            stacklevel=2,
        )
    side = getattr(inner, "image_size", 224)
    return Preprocess((side, side) if isinstance(side, int) else (224, 224), keep_aspect=flexible)
