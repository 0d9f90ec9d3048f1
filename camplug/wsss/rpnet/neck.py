"""Neck of RPNet between the last stage and the 1x1 classifier: channel reduction and a non-local block."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.wsss.rpnet.nonlocal_block import NonLocal

EnhancedBlock = Literal["own", "shared"]


class RegionNeck(nn.Module):
    """1x1 convolution without bias, followed by a non-local block.

    Inference uses the plain branch, `neck(x)`. In training the enhanced branch weighs the reduced features by the
    foreground probability (Liu et al., RPNet, eq. 10) and has a non-local block of its own:
    `neck.enhance(probability * neck.reduce_channels(x))`. As in the authors' code there is no ReLU after the
    convolution, so reduced features may be negative. Their code has both blocks for each image of a pair; here the
    images of a group share them. A head that was trained in front of the neck can be kept (`take_head`).

    Args:
        channels: channels of the last stage.
        width: channels of the reduced features.
        enhanced_block: non-local block of the enhanced branch: "own", or "shared" with the plain one.

    Raises:
        InputError: a size is below 1, or there is no such block.

    >>> RegionNeck(8, 4).settings()
    {'channels': 8, 'width': 4, 'enhanced_block': 'own'}
    """

    def __init__(self, channels: int, width: int = 512, enhanced_block: EnhancedBlock = "own") -> None:
        super().__init__()
        if channels < 1 or width < 1:
            raise InputError(f"channels={channels}, width={width}; give 1 or more.")
        self.channels = channels
        self.width = width
        self.enhanced_block = check_enhanced_block(enhanced_block)
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.context = NonLocal(width)
        self.enhanced_context = NonLocal(width) if enhanced_block == "own" else None

    def reduce_channels(self, x: Tensor) -> Tensor:
        """Reduce features of the last stage [N,channels,h,w] to [N,width,h,w], of any sign."""
        features: Tensor = self.reduce(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Compute the plain branch, [N,channels,h,w] to [N,width,h,w]."""
        features: Tensor = self.context(self.reduce_channels(x))
        return features

    def enhance(self, features: Tensor) -> Tensor:
        """Apply the non-local block of the enhanced branch, [N,width,h,w] to the same shape."""
        block = self.context if self.enhanced_context is None else self.enhanced_context
        result: Tensor = block(features)
        return result

    @torch.no_grad()
    def take_head(self, weight: Tensor) -> Tensor:
        r"""Initialise the reduction for a head that was trained in front of it.

        .. math:: W' R = W, \qquad R R^T = 1

        The reduction R gets orthonormal rows, of which the first ones span the rows of the head and the others are
        random. The non-local block is the identity at first, so the head W' behind the neck gives the class maps of W.

        Args:
            weight: W, [C,channels], C at most `width`.

        Returns:
            W', [C,width].
        """
        rows = min(self.width, self.channels)
        filled = torch.cat([weight.T, torch.randn(self.channels, rows).to(weight)], 1)[:, :rows].double()
        basis = torch.linalg.qr(filled)[0]
        self.reduce.weight[:rows] = basis.T[:, :, None, None].to(weight)
        moved = weight.new_zeros(len(weight), self.width)
        moved[:, :rows] = (weight.double() @ basis).to(weight)
        return moved

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build this neck again, `RegionNeck(**settings)`."""
        return {"channels": self.channels, "width": self.width, "enhanced_block": self.enhanced_block}


def check_enhanced_block(kind: EnhancedBlock) -> EnhancedBlock:
    """Return the kind of the enhanced branch's block.

    Raises:
        InputError: it is unknown.
    """
    if kind not in ("own", "shared"):
        raise InputError(f"enhanced_block={kind!r}; allowed are own, shared.")
    return kind
