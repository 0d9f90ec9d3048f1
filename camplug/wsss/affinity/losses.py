"""What pairs of positions say about each other, from labels, and the loss that teaches it to affinities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.affinity.pairs import ends, half_disc
from camplug.wsss.data.dataset import IGNORE

EPSILON = 1e-5


class Pairs(NamedTuple):
    """Which pairs are of one background, of one object class, or of different classes: bool [N,P,h,w] each.

    Pairs with an ignored end, or an end off the grid, are in none of them.
    """

    background: Tensor
    foreground: Tensor
    different: Tensor

    def counts(self) -> Tensor:
        """How many pairs there are of each kind, [3]."""
        return torch.stack([kind.sum() for kind in self])


def pairs_of(labels: Tensor, radius: int) -> Pairs:
    """Compare the labels of all pairs closer than `radius`.

    Args:
        labels: [N,h,w] whole numbers: 0 background, 255 ignored, others classes.
        radius: as in `half_disc`, which also gives the order of the P offsets.

    Raises:
        InputError: labels of another kind.

    >>> pairs_of(torch.tensor([[[0, 0, 1]]]), 2).different[0, 0]
    tensor([[False,  True, False]])
    """
    if labels.ndim != 3 or labels.is_floating_point():
        raise InputError(f"labels are whole numbers [N,h,w]; got {labels.dtype} {list(labels.shape)}.")
    offsets = half_disc(radius)
    n, h, w = labels.shape
    background, foreground, different = torch.zeros((3, n, len(offsets), h, w), dtype=torch.bool, device=labels.device)
    for p, offset in enumerate(offsets):
        one, other = ends(labels, *offset)
        known = (one != IGNORE) & (other != IGNORE)
        same = known & (one == other)
        ends(background[:, p], *offset)[0].copy_(same & (one == 0))
        ends(foreground[:, p], *offset)[0].copy_(same & (one != 0))
        ends(different[:, p], *offset)[0].copy_(known & ~same)
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
    background, foreground, different = pairs.counts() if counts is None else counts
    return (
        mean_of(-(affinity[pairs.background] + EPSILON).log(), background) / 4
        + mean_of(-(affinity[pairs.foreground] + EPSILON).log(), foreground) / 4
        + mean_of(-(1 + EPSILON - affinity[pairs.different]).log(), different) / 2
    )


def mean_of(values: Tensor, count: Tensor) -> Tensor:
    """The sum of values over a count, of any number format; no values give 0."""
    return values.sum() / (count.double() + EPSILON).to(values)  # as in their code
