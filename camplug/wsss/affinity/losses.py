"""What pairs of positions say about each other, from labels, and the loss that teaches it to affinities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.affinity.pairs import group_rows, make_half_disc, slice_ahead
from camplug.wsss.data.dataset import IGNORE

EPSILON = 1e-5


class Pairs(NamedTuple):
    """Which pairs are of one background, of one object class, or of different classes: bool [N,P,h,w] each.

    Pairs with an ignored end, or an end off the grid, are in none of them.
    """

    background: Tensor
    foreground: Tensor
    different: Tensor

    def count_pairs(self) -> Tensor:
        """How many pairs there are of each kind, [3]."""
        return torch.stack([kind.sum() for kind in self])


def find_pairs(labels: Tensor, radius: int) -> Pairs:
    """Compare the labels of all pairs closer than `radius`.

    Args:
        labels: [N,h,w] whole numbers: 0 background, 255 ignored, others classes.
        radius: as in `make_half_disc`, which also gives the order of the P offsets.

    Raises:
        InputError: labels of another kind.

    >>> find_pairs(torch.tensor([[[0, 0, 1]]]), 2).different[0, 0]
    tensor([[False,  True, False]])
    """
    if labels.ndim != 3 or labels.is_floating_point():
        raise InputError(f"labels are whole numbers [N,h,w]; got {labels.dtype} {list(labels.shape)}.")
    if labels.dtype in (torch.bool, torch.int8):
        labels = labels.short()  # that hold no 255
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
    the pairs of its kind in the batch; a kind without pairs adds nothing.

    Args:
        affinity: [N,P,h,w] in [0, 1].
        pairs: of the same shape.
        counts: what the sums are divided by in place of the numbers of pairs, [3]; see `mean_over_processes`.
    """
    affinity = to_at_least_float32(affinity)
    shares = 1 / ((pairs.count_pairs() if counts is None else counts).double() + EPSILON)  # as in their code
    background, foreground, different = shares.to(affinity)
    # one dense sum over all pairs: to pick out those of a kind, the host would wait for their number
    weights = torch.where(pairs.foreground, foreground / 4, pairs.background * (background / 4))
    weights = torch.where(pairs.different, different / 2, weights)
    cost = -torch.where(pairs.different, 1 + EPSILON - affinity, affinity + EPSILON).log()
    return (cost * weights).sum()


def to_at_least_float32(x: Tensor) -> Tensor:
    """In float32 what is in half precision, whose digits do not tell 1 + epsilon - a from 0."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def divide_by_count(values: Tensor, count: Tensor) -> Tensor:
    """A sum of values over their count, of any number format; no values give 0."""
    return values / (count.double() + EPSILON).to(values)  # as in their code
