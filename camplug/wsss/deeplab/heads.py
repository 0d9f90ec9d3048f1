"""Heads of three DeepLabs: LargeFOV, ASPP as a sum of classifiers, and ASPP with decoder of v3+."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from camplug.explain.tensor_ops import widen
from camplug.wsss.deeplab.settings import Head

AT_STRIDE_8: dict[Head, tuple[int, ...]] = {"large-fov": (12,), "aspp": (6, 12, 18, 24), "v3+": (12, 24, 36)}
LOW_CHANNELS = 48


def get_dilations(head: Head, stride: int) -> tuple[int, ...]:
    """Return the default dilations of a head: the papers' at stride 8, halved at 16, at least 1.

    Args:
        head: name of the head.
        stride: image pixels per position of the map.

    >>> get_dilations("aspp", 8), get_dilations("aspp", 16), get_dilations("v3+", 16)
    ((6, 12, 18, 24), (3, 6, 9, 12), (6, 12, 18))
    """
    return tuple(max(1, round(rate * 8 / stride)) for rate in AT_STRIDE_8[head])


class LargeFOV(nn.Module):
    """Head of the first DeepLab (Chen et al., ICLR 2015): one 3x3 convolution of a large dilation, then 1x1.

    The field of view is 2 r + 1 positions, 25 at r = 12; dropout of 0.5 after both hidden layers.

    Args:
        channels: channels of the input.
        classes: K + 1, background first.
        width: channels of the hidden layers.
        dilations: (r,).
    """

    def __init__(self, channels: int, classes: int, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        (rate,) = dilations
        self.wide = _make_atrous(channels, width, rate)
        self.deep = nn.Conv2d(width, width, 1)
        self.classifier = _make_classifier(width, classes)
        self.dropout = nn.Dropout(0.5)

    @override
    def forward(self, x: Tensor, low: Tensor | None = None) -> Tensor:
        """Compute logits [N,K+1,h,w] from maps [N,C,h,w]."""
        for layer in (self.wide, self.deep):
            x = self.dropout(layer(x).relu())
        logits: Tensor = self.classifier(x)
        return logits


class ASPP(nn.Module):
    r"""Atrous spatial pyramid pooling of the second DeepLab (Chen et al., PAMI 2018): a sum of classifiers.

    .. math:: z = \sum_r \big(W_r *_r f + b_r\big)

    Each branch is a 3x3 convolution of dilation r from the features to the classes.

    Args:
        channels: channels of the input.
        classes: K + 1, background first.
        dilations: r of each branch.
    """

    def __init__(self, channels: int, classes: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_init_near_zero(_make_atrous(channels, classes, rate)) for rate in dilations)

    @override
    def forward(self, x: Tensor, low: Tensor | None = None) -> Tensor:
        """Compute logits [N,K+1,h,w] from maps [N,C,h,w], at least float32."""
        # one matrix product for all taps, then shifted into place: twice as fast as convolutions
        convs = cast("list[nn.Conv2d]", list(self.branches))
        taps = [conv.weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2) for conv in convs]
        # float32 also under autocast, since each logit is a sum of dozens of products
        products = widen(F.conv2d(x, torch.cat(taps)[:, :, None, None])).chunk(len(taps), 1)
        # added one by one, since the gradients of a stack's parts share memory
        logits = reduce(torch.add, (cast(Tensor, conv.bias) for conv in convs))[:, None, None]
        for conv, product in zip(convs, products, strict=True):
            rate = conv.dilation[0]
            logits = logits + F.fold(product.flatten(2), (x.shape[2], x.shape[3]), 3, dilation=rate, padding=rate)
        return logits


class V3Plus(nn.Module):
    """ASPP and decoder of DeepLab v3+ (Chen et al., ECCV 2018).

    A 1x1 convolution, 3x3 convolutions of several dilations and the image's mean are concatenated and projected to
    `width` channels, resized to the map of stride 4, concatenated with it after its reduction to 48 channels, and pass
    two 3x3 convolutions and the classifier. All convolutions have batch norm, always trained.

    Args:
        channels: channels of the last map.
        low: channels of the map of stride 4.
        classes: K + 1, background first.
        width: channels of every hidden layer.
        dilations: dilations of the parallel 3x3 convolutions.
    """

    def __init__(self, channels: int, low: int, classes: int, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_add_norm(nn.Conv2d(channels, width, 1, bias=False))])
        self.branches += [_add_norm(_make_atrous(channels, width, rate, bias=False)) for rate in dilations]
        self.pooled = _add_norm(nn.Conv2d(channels, width, 1, bias=False))
        self.project = _add_norm(nn.Conv2d((len(dilations) + 2) * width, width, 1, bias=False))
        self.dropout = nn.Dropout(0.1)
        self.low = _add_norm(nn.Conv2d(low, LOW_CHANNELS, 1, bias=False))
        self.decoder = nn.Sequential(
            _add_norm(_make_atrous(width + LOW_CHANNELS, width, 1, bias=False)),
            _add_norm(_make_atrous(width, width, 1, bias=False)),
        )
        self.classifier = _make_classifier(width, classes)

    @override
    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        """Compute logits [N,K+1,h,w] from maps [N,C,h',w'] and finer ones [N,L,h,w]."""
        mean = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        x = self.dropout(self.project(torch.cat([*(branch(x) for branch in self.branches), mean], 1)))
        x = F.interpolate(x, low.shape[2:], mode="bilinear")
        logits: Tensor = self.classifier(self.decoder(torch.cat([x, self.low(low)], 1)))
        return logits


class _Norm(nn.BatchNorm2d):
    """Batch norm that uses its running statistics for a single value per channel, which has no variance."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def _make_atrous(inside: int, outside: int, rate: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=rate, dilation=rate, bias=bias)


def _add_norm(conv: nn.Conv2d) -> nn.Sequential:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, _Norm(conv.out_channels), nn.ReLU())


def _make_classifier(inside: int, classes: int) -> nn.Conv2d:
    return _init_near_zero(nn.Conv2d(inside, classes, 1))


def _init_near_zero(conv: nn.Conv2d) -> nn.Conv2d:
    """Initialise a convolution near 0, as in the published code, so that no class is preferred."""
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
