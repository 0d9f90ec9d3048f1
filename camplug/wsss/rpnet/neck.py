"""Neck of RPNet between the last stage and the 1x1 classifier: channel reduction and a non-local block."""

from __future__ import annotations

from torch import Tensor, nn

from camplug.errors import InputError
from camplug.wsss.rpnet.nonlocal_block import NonLocal


class RegionNeck(nn.Module):
    """1x1 convolution without bias, followed by a non-local block.

    Inference uses the plain branch, `neck(x)`. In training the enhanced branch weighs the reduced features by the
    foreground probability (Liu et al., RPNet, eq. 10): `neck.context(probability * neck.reduce_channels(x))`. As in the
    authors' code there is no ReLU after the convolution, so reduced features may be negative. Their code has one block
    for each image of a pair; here the images of a group share one.

    Args:
        channels: channels of the last stage.
        width: channels of the reduced features.

    Raises:
        InputError: a size is below 1.

    >>> RegionNeck(8, 4).settings()
    {'channels': 8, 'width': 4}
    """

    def __init__(self, channels: int, width: int = 512) -> None:
        super().__init__()
        if channels < 1 or width < 1:
            raise InputError(f"channels={channels}, width={width}; give 1 or more.")
        self.channels = channels
        self.width = width
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.context = NonLocal(width)

    def reduce_channels(self, x: Tensor) -> Tensor:
        """Reduce features of the last stage [N,channels,h,w] to [N,width,h,w], of any sign."""
        features: Tensor = self.reduce(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Compute the plain branch, [N,channels,h,w] to [N,width,h,w]."""
        features: Tensor = self.context(self.reduce_channels(x))
        return features

    def settings(self) -> dict[str, int]:
        """Return the arguments that build this neck again, `RegionNeck(**settings)`."""
        return {"channels": self.channels, "width": self.width}
