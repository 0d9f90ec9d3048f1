"""Comparison of labels of pairs of positions, and the affinity loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.affinity.pairs import group_rows, make_half_disc, slice_ahead
from camplug.wsss.data.dataset import IGNORE

EPSILON = 1e-5


class Pairs(NamedTuple):
    """Kinds of pairs, bool [N,P,h,w] each; pairs with an end that is ignored or off the grid have no kind.

    Attributes:
        background: pairs of background positions.
        foreground: pairs of the same object class.
        different: pairs of different classes.
    """

    background: Tensor
    foreground: Tensor
    different: Tensor

    def count_pairs(self) -> Tensor:
        """Count the pairs of each kind, [3]."""
        return torch.stack([kind.sum() for kind in self])


def find_pairs(labels: Tensor, radius: int) -> Pairs:
    """Compare the labels of all pairs closer than `radius`.

    Args:
        labels: integers [N,h,w]: 0 background, 255 ignored, others classes.
        radius: radius of `make_half_disc`, which defines the order of the P offsets.

    Raises:
        InputError: labels have another shape or type.

    >>> find_pairs(torch.tensor([[[0, 0, 1]]]), 2).different[0, 0]
    tensor([[False,  True, False]])
    """
    if labels.ndim != 3 or labels.is_floating_point():
        raise InputError(f"labels are whole numbers [N,h,w]; got {labels.dtype} {list(labels.shape)}.")
    if labels.dtype in (torch.bool, torch.int8):
        labels = labels.short()  # cannot represent 255
    n, h, w = labels.shape
    shape = (3, n, len(make_half_disc(radius)), h, w)
    background, foreground, different = torch.empty(shape, dtype=torch.bool, device=labels.device)
    one, others = labels.unsqueeze(1), slice_ahead(labels, radius, IGNORE)
    known, nothing = one != IGNORE, one == 0
    for dy, columns, places in group_rows(radius):
        other = others[:, dy, columns].contiguous()
        same = (one == other) & known
        background[:, places] = same & nothing
        foreground[:, places] = same & ~nothing
        different[:, places] = (one != other) & known & (other != IGNORE)
    return Pairs(background, foreground, different)


def affinity_loss(affinity: Tensor, pairs: Pairs, counts: Tensor | None = None) -> Tensor:
    r"""Cross-entropy of affinities, balanced over the three kinds of pairs.

    .. math:: L = -\tfrac14 \overline{\log(a + \epsilon)}_{bg} - \tfrac14 \overline{\log(a + \epsilon)}_{fg}
              - \tfrac12 \overline{\log(1 + \epsilon - a)}_{different}

    (Ahn & Kwak, CVPR 2018, and Ahn, Cho & Kwak, CVPR 2019; epsilon = 1e-5 as in their code.) Each bar is the mean over
    the pairs of its kind in the batch, 0 without pairs.

    Args:
        affinity: affinities [N,P,h,w] in [0, 1].
        pairs: pairs [N,P,h,w].
        counts: divisors [3] instead of the numbers of pairs; see `mean_over_processes`.
    """
    affinity = to_at_least_float32(affinity)
    shares = 1 / ((pairs.count_pairs() if counts is None else counts).double() + EPSILON)  # as in their code
    background, foreground, different = shares.to(affinity)
    # one dense sum over all pairs: selecting those of a kind would synchronise with the GPU
    weights = torch.where(pairs.foreground, foreground / 4, pairs.background * (background / 4))
    weights = torch.where(pairs.different, different / 2, weights)
    cost = -torch.where(pairs.different, 1 + EPSILON - affinity, affinity + EPSILON).log()
    return (cost * weights).sum()


def to_at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision, which cannot represent 1 + epsilon - a, to float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def divide_by_count(values: Tensor, count: Tensor) -> Tensor:
    """Divide a sum by a count of any dtype; 0 for no values."""
    return values / (count.double() + EPSILON).to(values)  # as in their code
