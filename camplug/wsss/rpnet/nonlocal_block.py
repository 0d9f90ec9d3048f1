"""A non-local block whose memory grows with the grid, not with its square."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.explain.tensor_ops import widen


class NonLocal(nn.Module):
    r"""Every position looks at all others and adds what it finds; at first nothing.

    .. math:: y_i = \frac{1}{N} \sum_j (\theta_i \cdot \phi_j) \, g_j, \qquad z_i = x_i + \mathrm{BN}(W y_i)

    (Wang et al., Non-local Neural Networks, CVPR 2018, eq. 4 and 6: the dot product form; theta, phi, g and W are 1x1
    convolutions, N the number of positions.) BN's weights start at 0, so the block starts as the identity.

    There is no softmax between the two products, so they may be taken in any order: (theta phi^T) g holds hw x hw
    numbers, theta (phi^T g) width x width, with the same result. This block takes the second one, for any grid.
    The sums over positions are at least float32, also in autocast.

    Args:
        channels: of the maps.
        width: of theta, phi and g; half the channels by default.

    Raises:
        InputError: sizes below 1.
    """

    def __init__(self, channels: int, width: int | None = None) -> None:
        super().__init__()
        width = max(1, channels // 2) if width is None else width
        if channels < 1 or width < 1:
            raise InputError(f"channels={channels}, width={width}; give 1 or more.")
        self.theta = nn.Conv2d(channels, width, 1)
        self.phi = nn.Conv2d(channels, width, 1)
        self.g = nn.Conv2d(channels, width, 1)
        self.out = nn.Conv2d(width, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape, [N,C,h,w]."""
        y = nonlocal_mean(self.theta(x), self.phi(x), self.g(x))
        residual: Tensor = self.norm(self.out(y.to(x.dtype)))
        return x + residual


def nonlocal_mean(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    r"""The mean of g over all positions, each weighted by its dot product with theta.

    .. math:: y_i = \frac{1}{N} \sum_j (\theta_i \cdot \phi_j) \, g_j

    Args:
        theta, phi: [N,K,h,w].
        g: [N,C,h,w].

    Returns:
        y, [N,C,h,w], at least float32, also in autocast.

    >>> row = torch.tensor([[[[1.0, 2.0]]]])
    >>> nonlocal_mean(row, row, row)
    tensor([[[[2.5000, 5.0000]]]])
    """
    with torch.autocast(theta.device.type, enabled=False):
        asked, keys, values = (widen(part).flatten(2) for part in (theta, phi, g))
        table = values @ keys.mT / values.shape[-1]  # [N,C,K]
        return (table @ asked).view(g.shape)
