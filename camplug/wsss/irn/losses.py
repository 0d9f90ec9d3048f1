"""Displacement losses of IRN."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.wsss.affinity.losses import Pairs, divide_by_count, to_at_least_float32
from camplug.wsss.affinity.pairs import group_rows, slice_ahead


def displacement_loss(
    displacement: Tensor, pairs: Pairs, radius: int, counts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Compute the losses of displacements: equal centres within objects, equal displacements in the background.

    With the difference of displacements :math:`\delta_{ij} = D(x_i) - D(x_j)` and :math:`\hat\delta_{ij} = x_j - x_i`,

    .. math:: L_{fg} = \frac{1}{2 |P_{fg}|} \sum_{P_{fg}} |\delta_{ij} - \hat\delta_{ij}|_1, \qquad
              L_{bg} = \frac{1}{2 |P_{bg}|} \sum_{P_{bg}} |\delta_{ij}|_1

    (Ahn, Cho & Kwak, CVPR 2019; the factors 1/2 as in their code.) Differences are computed for one row of offsets at a
    time, and the gradient is accumulated on the way, so that nothing of the size of all pairs is stored.

    Args:
        displacement: [N,2,h,w], rows before columns, in grid positions.
        pairs: pairs of equal labels, with the same radius.
        radius: bound of the distance of pairs, exclusive; see `make_half_disc`.
        counts: numbers of pairs; see `affinity_loss`.

    Returns:
        L_fg and L_bg.
    """
    of_background, of_foreground, _ = pairs.count_pairs() if counts is None else counts
    foreground, background = _Differences.apply(
        to_at_least_float32(displacement), pairs.foreground, pairs.background, radius
    )
    return divide_by_count(foreground, of_foreground) / 2, divide_by_count(background, of_background) / 2


class _Differences(torch.autograd.Function):
    """Sums over P_fg and P_bg."""

    @staticmethod
    def forward(
        ctx: Any, displacement: Tensor, foreground: Tensor, background: Tensor, radius: int
    ) -> tuple[Tensor, Tensor]:
        (n, _, h, w), reach = displacement.shape, radius - 1
        one, others = displacement.unsqueeze(2), slice_ahead(displacement, radius, 0)
        steps = torch.arange(-reach, radius, device=displacement.device).view(-1, 1, 1)
        sums = [displacement.new_zeros(()) for _ in range(2)]
        # padded as in `slice_ahead`; the padding belongs to no pair and stays 0
        slopes = displacement.new_zeros((2, n, 2, h + reach, w + 2 * reach)) if ctx.needs_input_grad[0] else None
        for dy, columns, places in group_rows(radius):
            other = others[:, :, dy, columns]
            nowhere = torch.sub(one, other, out=one.new_empty(other.shape))  # contiguous, unlike a new result
            to_centre = nowhere.clone()
            to_centre[:, 0] -= dy
            to_centre[:, 1] -= steps[columns]
            for kind, (difference, pairs) in enumerate(((to_centre, foreground), (nowhere, background))):
                slope = difference.sign().mul_(pairs[:, None, places])
                sums[kind] += difference.mul_(slope).sum()
                if slopes is not None:
                    slopes[kind, :, :, :h, reach : reach + w] += slope.sum(2)
                    width = slope.shape[2]
                    at_ends = F.fold(slope.view(n, 2 * width, h * w), (h, w + width - 1), (1, width))
                    slopes[kind, :, :, dy : dy + h, columns.start : columns.start + w + width - 1] -= at_ends
        if slopes is not None:
            ctx.save_for_backward(slopes[..., :h, reach : reach + w].contiguous())
        return sums[0], sums[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradients[0] * slopes[0] + gradients[1] * slopes[1], None, None, None
