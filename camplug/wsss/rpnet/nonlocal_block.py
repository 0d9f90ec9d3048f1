"""Non-local block with memory linear in the number of positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.explain.tensor_ops import widen


class NonLocal(nn.Module):
    r"""Non-local block in the dot-product form, initialised as the identity.

    .. math:: y_i = \frac{1}{N} \sum_j (\theta_i \cdot \phi_j) \, g_j, \qquad z_i = x_i + \mathrm{BN}(W y_i)

    (Wang et al., Non-local Neural Networks, CVPR 2018, eq. 4 and 6; theta, phi, g and W are 1x1 convolutions, N the
    number of positions.) The weights of BN start at 0.

    Without a softmax the products can be taken in any order: (theta phi^T) g needs hw x hw numbers, theta (phi^T g),
    which is used here, width x width, with the same result. Sums over positions are at least float32, also under
    autocast.

    Args:
        channels: channels of the maps.
        width: channels of theta, phi and g; None is half the channels.

    Raises:
        InputError: a size is below 1.
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
        """Compute maps of the same shape, [N,C,h,w]."""
        y = nonlocal_mean(self.theta(x), self.phi(x), self.g(x))
        residual: Tensor = self.norm(self.out(y.to(x.dtype)))
        return x + residual


def nonlocal_mean(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    r"""Compute the mean of g over all positions, weighted by the dot products of phi with theta.

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
        queries, keys, values = (widen(part).flatten(2) for part in (theta, phi, g))
        table = values @ keys.mT / values.shape[-1]  # [N,C,K]
        return (table @ queries).view(g.shape)
