"""Affinity from boundaries: how far a straight path between two positions stays clear of any boundary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.affinity import along, ends, half_disc, path


def path_affinity(boundary: Tensor, radius: int) -> Tensor:
    r"""One minus the strongest boundary on the path between two positions, for all pairs closer than `radius`.

    .. math:: a_{ij} = 1 - \max_{k \in \Pi_{ij}} B(x_k)

    (Ahn, Cho & Kwak, CVPR 2019). A running maximum over shifted slices; no table of indices is made. The gradient goes
    to the position of the maximum, to the first of equals, counted from the destination.

    Args:
        boundary: [N,h,w] in [0, 1].
        radius: as in `half_disc`.

    Returns:
        [N,P,h,w]: at [n, p, y, x] the affinity of (y, x) and (y + dy, x + dx) for the p-th offset of
        `half_disc(radius)`; 0 where the destination is off the grid.

    Raises:
        InputError: no batch of planes.

    >>> path_affinity(torch.tensor([[[0.0, 0.25, 0.0]]]), 3)[0, :2]  # one and two steps to the right
    tensor([[[0.7500, 0.7500, 0.0000]],
    <BLANKLINE>
            [[0.7500, 0.0000, 0.0000]]])
    """
    if boundary.ndim != 3 or not boundary.is_floating_point():
        raise InputError(f"boundaries are floating-point planes [N,h,w]; got {boundary.dtype} {list(boundary.shape)}.")
    affinity: Tensor = _PathAffinity.apply(boundary, radius)
    return affinity


class _PathAffinity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, boundary: Tensor, radius: int) -> Tensor:
        offsets = half_disc(radius)
        n, h, w = boundary.shape
        affinity = boundary.new_zeros((n, len(offsets), h, w))
        learning = ctx.needs_input_grad[0]
        # which position of the path holds the maximum: 1 byte per pair instead of the values along the path
        place = torch.zeros(affinity.shape if learning else 0, dtype=torch.uint8, device=boundary.device)
        for p, offset in enumerate(offsets):
            views = along(boundary, *offset)
            strongest = next(views).clone()
            at = ends(place[:, p], *offset)[0] if learning else None
            for k, view in enumerate(views, 1):
                if at is not None:
                    at.masked_fill_(view > strongest, k)
                torch.maximum(strongest, view, out=strongest)
            ends(affinity[:, p], *offset)[0].copy_(1 - strongest)
        ctx.radius = radius
        ctx.save_for_backward(place)
        return affinity

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        (place,) = ctx.saved_tensors
        n, _, h, w = gradient.shape
        total = gradient.new_zeros((n, h * w))
        own = torch.arange(h * w, device=gradient.device).view(1, h, w)
        for p, (dy, dx) in enumerate(half_disc(ctx.radius)):
            steps = torch.tensor([y * w + x for y, x in path(dy, dx)], device=gradient.device)
            source, at, received = (ends(t, dy, dx)[0] for t in (own, place[:, p], gradient[:, p]))
            target = steps[at.long()] + source
            total.scatter_add_(1, target.flatten(1), -received.flatten(1))
        return total.view(n, h, w), None
