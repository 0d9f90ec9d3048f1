"""Affinities from the boundaries on straight paths."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.affinity import make_half_disc, make_path
from camplug.wsss.affinity.pairs import slice_ahead


def path_affinity(boundary: Tensor, radius: int) -> Tensor:
    r"""Compute one minus the strongest boundary on the path of two positions, for all pairs closer than `radius`.

    .. math:: a_{ij} = 1 - \max_{k \in \Pi_{ij}} B(x_k)

    (Ahn, Cho & Kwak, CVPR 2019). Computed as a running maximum over shifted planes, for all paths of one length at
    once, without an index table of the grid. The gradient goes to the position of the maximum; among equal ones to the
    first, counted from the destination.

    Args:
        boundary: [N,h,w] in [0, 1].
        radius: bound of the distance of pairs, exclusive; see `make_half_disc`.

    Returns:
        [N,P,h,w]: element [n, p, y, x] is the affinity of (y, x) and (y + dy, x + dx) for the p-th offset of
        `make_half_disc(radius)`; 0 where the destination is off the grid.

    Raises:
        InputError: the boundaries are no batch of planes.

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
        (n, h, w), count = boundary.shape, len(make_half_disc(radius))
        # padded with a boundary of 1, so that paths off the grid get affinity 0
        views = slice_ahead(boundary, radius, 1)
        affinity = boundary.new_empty((n, count, h, w))
        learning = ctx.needs_input_grad[0]
        # position of the maximum on the path: 1 byte per pair instead of the values along the path
        place = torch.empty(affinity.shape if learning else 0, dtype=torch.uint8, device=boundary.device)
        for numbers, ys, xs in _group_by_length(radius, boundary.device):
            strongest = views[:, ys[0], xs[0]]
            at = torch.zeros_like(strongest, dtype=torch.uint8) if learning else None
            for k, (y, x) in enumerate(zip(ys[1:], xs[1:], strict=True), 1):
                view = views[:, y, x]
                if at is not None:
                    at.masked_fill_(view > strongest, k)
                torch.maximum(strongest, view, out=strongest)
            affinity[:, numbers] = 1 - strongest
            if at is not None:
                place[:, numbers] = at
        ctx.radius = radius
        ctx.save_for_backward(place)
        return affinity

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        (place,) = ctx.saved_tensors
        (n, _, h, w), reach, device = gradient.shape, ctx.radius - 1, gradient.device
        height, width = (
            h + reach,
            w + 2 * reach,
        )  # size of the padded planes of `slice_ahead`; the padding belongs to no pair
        total = gradient.new_zeros(n * height * width)
        image = torch.arange(n, device=device).view(-1, 1, 1, 1) * (height * width)
        own = image + torch.arange(h, device=device).view(-1, 1) * width + torch.arange(w, device=device)
        for numbers, ys, xs in _group_by_length(ctx.radius, device):
            steps, offset = ys * width + xs, torch.arange(len(numbers), device=device).view(-1, 1, 1)
            target = steps[place[:, numbers].long(), offset] + own
            total.scatter_add_(0, target.flatten(), gradient[:, numbers].flatten())
        return -total.view(n, height, width)[:, :h, reach : reach + w], None


@lru_cache(maxsize=16)
def _group_by_length(radius: int, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Group the offsets by the lengths of their paths, G offsets of L positions.

    Returns:
        For each length the numbers of the offsets in `make_half_disc` [G], and the rows and columns of their paths in
        the result of `slice_ahead` [L,G].
    """
    offsets = make_half_disc(radius)
    lengths = sorted({len(make_path(*offset)) for offset in offsets})
    found = []
    with torch.inference_mode(False):  # cached, so usable in trainings, too
        for length in lengths:
            numbers = [p for p, offset in enumerate(offsets) if len(make_path(*offset)) == length]
            places = torch.tensor([make_path(*offsets[p]) for p in numbers]).permute(2, 1, 0)
            places[1] += radius - 1
            ys, xs = places.to(device)
            found.append((torch.tensor(numbers).to(device), ys, xs))
    return found
