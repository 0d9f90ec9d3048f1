"""Adjusted views of an image by changes of contrast and brightness in grey levels."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from camplug.errors import InputError

WHITE = 255


@dataclass(frozen=True)
class GreyChange:
    r"""Change of contrast and brightness (Qin et al., TCSVT 2024).

    .. math:: g'(x, y) = \alpha g(x, y) + \beta \qquad (2)

    Attributes:
        alpha: factor of the contrast, above 0.
        beta: shift of the brightness, in grey levels of an image in 0..255.
    """

    alpha: float
    beta: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and math.isfinite(self.beta) and self.alpha > 0):
            raise InputError(f"alpha={self.alpha}, beta={self.beta}; give finite numbers with alpha above 0.")


# A tenth of the printed beta (300 and 150), which would saturate 100 % and 48 % of the range and brighten the
# "decreased" view. A tenth has the described effect: a mean of 127 becomes 221 and 117.
ENHANCED = GreyChange(1.5, 30)
DECREASED = GreyChange(0.8, 15)


def adjust_grey(pixels: Tensor, change: GreyChange) -> Tensor:
    """Change the grey levels of images (eq. 2), clipped and rounded like an image of 8 bits.

    Without the clipping, a convolution followed by batch normalisation would undo the change.

    Args:
        pixels: images [...,3,H,W] in 0..255, uint8 or floating-point, before normalisation.
        change: alpha and beta.

    Returns:
        Whole numbers in 0..255 of the same shape, float32 (float64 for float64).

    Raises:
        InputError: pixels have another shape, dtype or range.

    >>> adjust_grey(torch.tensor([[[0, 100, 200]]] * 3, dtype=torch.uint8), ENHANCED)[0]
    tensor([[ 30., 180., 255.]])
    """
    return _change_levels(pixels, change).clamp(0, WHITE)


def compute_saturation(pixels: Tensor, change: GreyChange) -> float:
    """Compute the share, in [0, 1], of the values that `adjust_grey` clips to 0..255.

    Args:
        pixels: images; see `adjust_grey`.
        change: alpha and beta.

    Raises:
        InputError: pixels have another shape, dtype or range.

    >>> grey = torch.arange(256.0).view(1, 1, 256).expand(3, 1, 256)
    >>> changes = ENHANCED, DECREASED, GreyChange(1.5, 300), GreyChange(0.8, 150)
    >>> [round(compute_saturation(grey, change), 2) for change in changes]
    [0.41, 0.0, 1.0, 0.48]
    """
    levels = _change_levels(pixels, change)
    return float(((levels < 0) | (levels > WHITE)).double().mean())


def warn_if_saturated(pixels: Tensor, change: GreyChange) -> None:
    """Warn where a change saturates more than half of the values.

    Args:
        pixels: images; see `adjust_grey`.
        change: alpha and beta.

    Raises:
        InputError: pixels have another shape, dtype or range.
    """
    share = compute_saturation(pixels, change)
    if share > 0.5:
        warnings.warn(
            f"{share:.0%} of the pixel values saturate under {change}; give an alpha and a beta that keep most of "
            f"0..255 inside, such as {ENHANCED} or {DECREASED}.",
            stacklevel=2,
        )


def _change_levels(pixels: Tensor, change: GreyChange) -> Tensor:
    pixels = _check_pixels(pixels)
    levels = change.alpha * pixels.to(torch.promote_types(pixels.dtype, torch.float32)) + change.beta
    return levels.round()


def _check_pixels(pixels: Tensor) -> Tensor:
    if pixels.ndim < 3 or pixels.shape[-3] != 3 or pixels.numel() == 0:
        raise InputError(f"pixels {list(pixels.shape)}; give colour images [...,3,H,W].")
    if pixels.dtype == torch.uint8:
        return pixels
    if not pixels.is_floating_point():
        raise InputError(f"pixels of {pixels.dtype}; give uint8 or floating-point values in 0..255.")
    low, high = (float(v) for v in torch.stack(pixels.aminmax()))
    if not (low >= 0 and high <= WHITE):  # NaN fails, too
        raise InputError(f"pixels from {low:.4g} to {high:.4g}; give 0..255, before normalisation.")
    if 0 < high <= 1:
        raise InputError(f"pixels from {low:.4g} to {high:.4g} look like an image in 0..1; multiply it by 255.")
    return pixels
