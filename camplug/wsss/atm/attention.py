"""Parts of the focused-unfocused module: channel attention, spatial attention, atrous convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from camplug.errors import InputError


class ChannelAttention(nn.Module):
    r"""Squeeze-and-excitation gate of channels (Hu, Shen & Sun, CVPR 2018).

    .. math:: x_c \cdot \sigma(W_2\, \mathrm{relu}(W_1\, \overline{x}))_c

    An untrained gate is close to 0.5, so it halves the activations.

    Args:
        channels: channels of the input.
        reduction: factor by which the middle layer has fewer channels, at least 1 channel.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise InputError(f"channels={channels}, reduction={reduction}; give whole numbers from 1 up.")
        middle = max(1, channels // reduction)
        self.gate = nn.Sequential(nn.Linear(channels, middle), nn.ReLU(), nn.Linear(middle, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x, [N,C,h,w]."""
        gate: Tensor = self.gate(x.mean((2, 3)))
        return x * gate[..., None, None]


class SpatialAttention(nn.Module):
    r"""Gate of positions, as in CBAM (Woo et al., ECCV 2018).

    .. math:: x \cdot \sigma(f^{7 \times 7}[\mathrm{mean}_c\, x; \max_c x])

    An untrained gate is around 0.5, so it about halves the activations.

    Args:
        kernel: side of the convolution, odd.
    """

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"kernel={kernel}; give an odd number from 1 up.")
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the positions of x, [N,C,h,w]."""
        gate: Tensor = self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()
        return x * gate


class Atrous(nn.Sequential):
    """3x3 atrous convolutions in series, each with batch normalisation and ReLU: [N,C,h,w] -> [N,width,h,w].

    With dilations (1, 2, 3, 4) the receptive field is 21 x 21 positions.

    Args:
        channels: channels of the input.
        width: channels of every layer.
        dilations: dilation of each layer; 1 is an ordinary convolution.
    """

    def __init__(self, channels: int, width: int, dilations: Sequence[int] = (1, 2, 3, 4)) -> None:
        if channels < 1 or width < 1:
            raise InputError(f"channels={channels}, width={width}; give whole numbers from 1 up.")
        check_dilations(dilations)
        layers: list[nn.Module] = []
        for before, dilation in zip([channels, *[width] * (len(dilations) - 1)], dilations, strict=True):
            conv = nn.Conv2d(before, width, 3, padding=dilation, dilation=dilation, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*layers)


def check_dilations(dilations: Sequence[int]) -> None:
    """Raise InputError unless all dilations are at least 1."""
    if not dilations or min(dilations) < 1:
        raise InputError(
            f"dilations={tuple(dilations)}; give whole numbers from 1 up: the paper's 0, 1, 2, 3 count the zeros "
            "between the weights, which is (1, 2, 3, 4) here."
        )
