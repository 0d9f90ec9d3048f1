"""The displacement losses of IRN: where each position says that the centre of its object is."""

from __future__ import annotations

from torch import Tensor

from camplug.wsss.affinity import ends, half_disc
from camplug.wsss.affinity.losses import Pairs, mean_of


def displacement_loss(
    displacement: Tensor, pairs: Pairs, radius: int, counts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Positions of one object point to one centre, positions of the background nowhere together.

    With the difference of displacements :math:`\delta_{ij} = D(x_i) - D(x_j)` and :math:`\hat\delta_{ij} = x_j - x_i`,

    .. math:: L_{fg} = \frac{1}{2 |P_{fg}|} \sum_{P_{fg}} |\delta_{ij} - \hat\delta_{ij}|_1, \qquad
              L_{bg} = \frac{1}{2 |P_{bg}|} \sum_{P_{bg}} |\delta_{ij}|_1

    (Ahn, Cho & Kwak, CVPR 2019; the halves as in their code.)

    Args:
        displacement: [N,2,h,w], rows before columns, in grid positions.
        pairs: what the labels say, made with the same radius.
        radius: as in `half_disc`.
        counts: of pairs, as for `affinity_loss`.

    Returns:
        L_fg and L_bg.
    """
    foreground = background = displacement.sum() * 0  # keeps the graph where there are no pairs
    for p, (dy, dx) in enumerate(half_disc(radius)):
        one, other = ends(displacement, dy, dx)
        delta = one - other
        wanted = delta.new_tensor([dy, dx]).view(1, 2, 1, 1)
        same_object = ends(pairs.foreground[:, p], dy, dx)[0].unsqueeze(1)
        nothing = ends(pairs.background[:, p], dy, dx)[0].unsqueeze(1)
        foreground = foreground + ((delta - wanted).abs() * same_object).sum()
        background = background + (delta.abs() * nothing).sum()
    of_background, of_foreground, _ = pairs.counts() if counts is None else counts
    return mean_of(foreground, of_foreground) / 2, mean_of(background, of_background) / 2
