"""Preprocessing of photographs for a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.images.geometry import Box, find_box, scale_size

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LONGEST = 4  # limit of the aspect ratio, which bounds the cost of panoramas


@lru_cache(maxsize=64)
def make_channel_tensor(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Make a cached tensor [C,1,1] of one value per channel on a device; do not change it in place.

    >>> make_channel_tensor((0.5, 0.25), torch.device("cpu")).shape
    torch.Size([2, 1, 1])
    """
    with torch.inference_mode(False):  # the first caller may be in inference mode, later ones not
        return torch.tensor(values, dtype=torch.float32).to(device)[:, None, None]


def repeat_channel(value: float | tuple[float, ...]) -> tuple[float, ...]:
    """Return the numbers of red, green and blue; one number stands for all.

    >>> repeat_channel(0.5)
    (0.5, 0.5, 0.5)
    """
    return value if isinstance(value, tuple) else (value, value, value)


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing: resize without cropping, scale to [0, 1], subtract the mean, divide by the standard deviation.

    Args:
        size: height and width in pixels for which the model was made.
        mean, std: channel means and standard deviations for values in [0, 1]; a single number holds for all channels.
        interpolation: "bilinear", "bicubic", "nearest" or "lanczos".
        keep_aspect: keep the aspect ratio, with the shorter side from `size`; False resizes to exactly `size`.
        long_side: length of the longer side, with the aspect ratio kept; overrides `size`.
        channels: number of the model's input channels: 3, or 1 for grey (ITU-R 601), with the averages of `mean` and
            `std`.
        multiple: number that both sides are rounded to multiples of, for transformers that take any whole number of
            patches.

    Raises:
        InputError: `long_side` is below 1 or the model has a fixed size, or `mean` or `std` do not fit the channels.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    keep_aspect: bool = True
    long_side: int | None = None
    channels: int = 3
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.long_side is not None and self.long_side < 1:
            raise InputError(f"a long side of {self.long_side} pixels is not possible; give at least 1.")
        if self.long_side is not None and not self.keep_aspect:
            raise InputError(
                f"the model takes images of {self.size[0]}x{self.size[1]} pixels only; leave the long side out."
            )
        for name in ("mean", "std"):  # one number holds for all channels
            given = getattr(self, name)
            object.__setattr__(self, name, tuple(given) if hasattr(given, "__len__") else (given,))
        allowed = (1, 3) if self.channels in (1, 3) else (1, 3, self.channels)
        if len(self.mean) not in allowed or len(self.std) not in allowed:
            raise InputError(
                f"a mean of {len(self.mean)} numbers and a standard deviation of {len(self.std)} do not fit "
                f"{self.channels} channels; give one number, or one per channel."
            )

    def __call__(self, photo: Image) -> tuple[Tensor, Box]:
        """Return the input [C,H,W] and the region of the photograph that it shows, which is the whole.

        Raises:
            InputError: the model has neither 3 nor 1 input channels.
        """
        from PIL import Image as pil

        if self.channels not in (1, 3):
            raise InputError(
                f"the model reads {self.channels} channels, and a photograph has 3 colours; give a float tensor "
                f"[{self.channels},H,W] (normalised), or preprocess= that makes one of a photograph."
            )
        width, height = photo.size
        out_h, out_w = self.size
        if self.long_side is not None:
            out_h, out_w = scale_size((height, width), self.long_side / max(width, height), self.multiple)
        elif self.keep_aspect:
            scaled = scale_size((height, width), max(out_h / height, out_w / width), self.multiple)
            out_h, out_w = min(scaled[0], LONGEST * out_h), min(scaled[1], LONGEST * out_w)
        resample = getattr(pil.Resampling, self.interpolation.upper(), pil.Resampling.BILINEAR)
        photo = photo.convert("L") if self.channels == 1 else photo
        pixels = np.asarray(photo.resize((out_w, out_h), resample)).reshape(out_h, out_w, self.channels)
        return self.normalize(torch.from_numpy(pixels.copy()).permute(2, 0, 1)), Box(0, 0, width, height)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalise pixels [...,C,H,W] in 0 to 255."""
        mean, std = (make_channel_tensor(tuple(v), pixels.device) for v in (self.mean, self.std))
        if self.channels == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        return (pixels.float() / 255 - mean) / std

    def change(
        self, mean: float | tuple[float, ...] | None, std: float | tuple[float, ...] | None, long_side: int | None
    ) -> Preprocess:
        """Return the preprocessing with another long side and, unless None, another mean and standard deviation."""
        given = {"mean": mean, "std": std}
        changed: dict[str, Any] = {name: repeat_channel(value) for name, value in given.items() if value is not None}
        return replace(self, **changed, long_side=long_side)


@dataclass(frozen=True)
class Custom:
    """Preprocessing by a custom transform, whose region is found by `find_box`.

    Args:
        transform: function from a PIL image to a float tensor [C,H,W].
    """

    transform: Callable[[Any], Any]

    def __call__(self, photo: Image) -> tuple[Tensor, Box]:
        """Return the transform's tensor [C,H,W] and the region of the photograph that it shows.

        Raises:
            InputError: the transform returns something else.
        """
        x = self.transform(photo)
        if not isinstance(x, Tensor) or x.ndim != 3 or not x.is_floating_point():
            got = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"preprocess= must turn a PIL image into a float tensor [3,H,W]; it gave {got}.")
        return x, find_box(self.transform, photo.size)
