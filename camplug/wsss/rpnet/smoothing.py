"""Gaussian smoothing of maps with two rules for the borders."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.errors import InputError

Border: TypeAlias = Literal["normalized", "zero"]


def smooth_maps(maps: Tensor, sigma: float = 3.0, window: int = 5, border: Border = "normalized") -> Tensor:
    r"""Smooth maps by a Gaussian window.

    .. math:: G(x, y) \propto e^{-\frac{x^2 + y^2}{2 \sigma^2}}

    (Liu et al., RPNet, eq. 9; the weights of the window sum to 1.) At the borders "normalized" divides by the sum of
    the weights inside the map, so that constant maps stay constant; "zero" pads with zeros, as in the authors' code,
    and darkens the borders.

    Args:
        maps: [N,C,h,w].
        sigma: standard deviation in positions.
        window: side of the window in positions, odd. With sigma 3 a window of 5 is nearly a box.
        border: "normalized" or "zero".

    Returns:
        [N,C,h,w].

    Raises:
        InputError: the maps have another shape, or an option is not allowed.

    >>> smooth_maps(torch.ones(1, 1, 2, 2)).round(decimals=3)
    tensor([[[[1., 1.],
              [1., 1.]]]])
    """
    if maps.ndim != 4 or not maps.is_floating_point():
        raise InputError(f"maps are {maps.dtype} {list(maps.shape)}; give floating-point maps [N,C,h,w].")
    if not sigma > 0:
        raise InputError(f"sigma={sigma}; give a number above 0, in positions.")
    if window < 1 or window % 2 == 0:
        raise InputError(f"window={window}; give an odd number of positions, 1 or more.")
    if border not in ("normalized", "zero"):
        raise InputError(f'border={border!r}; give "normalized" or "zero".')
    distances = torch.arange(window, dtype=maps.dtype, device=maps.device) - window // 2
    weights = torch.exp(-(distances**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    with torch.autocast(maps.device.type, enabled=False):
        blurred = _blur(maps.flatten(0, 1)[:, None], weights).view(maps.shape)
        if border == "zero":
            return blurred
        return blurred / _blur(torch.ones_like(maps[:1, :1]), weights)


def _blur(x: Tensor, weights: Tensor) -> Tensor:
    reach = len(weights) // 2
    return F.conv2d(
        F.conv2d(x, weights.view(1, 1, -1, 1), padding=(reach, 0)), weights.view(1, 1, 1, -1), padding=(0, reach)
    )
