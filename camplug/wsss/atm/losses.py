"""Losses of attention transfer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.atm.merge import broadcast_labels

Average = Literal["all", "present"]


def similarity_loss(
    original: Tensor,
    enhanced: Tensor | None,
    decreased: Tensor | None,
    present: Tensor,
    *,
    average: Average = "all",
) -> Tensor:
    r"""Compute the distance of the original view's class maps from the adjusted views' (Qin et al., TCSVT 2024).

    .. math:: L_s = \tfrac12 \left( \overline{|M_o - M_d|} + \overline{|M_o - M_e|} \right) \qquad (5)

    Each bar is a mean over all positions of all classes of the batch, instead of the printed sum, so that the loss does
    not depend on the size of the maps. The maps of absent classes count as 0, as in SEAM's code (Wang et al., CVPR
    2020), so the loss is small where few of many classes are present. A batch without present classes gives 0 with a
    graph. All views get a gradient.

    Args:
        original: M_o, max-normalised, [N,C,h,w].
        enhanced: M_e, max-normalised, [N,C,h,w]; None leaves its term out, and the other term is not halved.
        decreased: M_d, max-normalised, [N,C,h,w]; None leaves its term out.
        present: 1 where image n shows class c, [N,C].
        average: "all" divides by the number of all classes, "present" by the number of present ones.

    Raises:
        InputError: no adjusted view is given, or the shapes do not fit together.

    >>> original, brighter = torch.tensor([[[[0.5, 1.0]]]]), torch.tensor([[[[0.7, 1.0]]]])
    >>> similarity_loss(original, brighter, None, torch.tensor([[1]]))
    tensor(0.1000)
    """
    views = [view for view in (enhanced, decreased) if view is not None]
    if not views:
        raise InputError("there is no adjusted view; give the maps of the enhanced or the decreased view, or of both.")
    shown = broadcast_labels(present, original, *views)
    return torch.stack([_mean_difference(original, view, shown, average) for view in views]).mean()


def make_background_planes(maps: Tensor, present: Tensor, *, foreground: bool = True) -> Tensor:
    r"""Add a background plane to class maps and keep only the strongest class at each position.

    .. math:: B_0 = 1 - \max_c M_c, \qquad B_c = M_c \, [M_c = \max_k M_k]

    The planes M_b of eq. 6, built as in SEAM (Wang et al., CVPR 2020). Equally strong classes all stay.

    Args:
        maps: M, max-normalised, [N,C,h,w] in [0, 1].
        present: 1 where image n shows class c, [N,C]; maps of absent classes are set to 0.
        foreground: return the planes of the classes, too.

    Returns:
        [N,C+1,h,w], or the background plane alone, [N,1,h,w].

    Raises:
        InputError: the shapes do not fit together.

    >>> make_background_planes(torch.tensor([[[[0.8, 0.1]], [[0.6, 0.4]]]]), torch.tensor([[1, 1]]))[0, :, 0]
    tensor([[0.2000, 0.6000],
            [0.8000, 0.0000],
            [0.0000, 0.4000]])
    """
    maps = torch.where(broadcast_labels(present, maps), _widen(maps), 0)
    strongest = maps.amax(1, keepdim=True)
    if not foreground:
        return 1 - strongest
    return torch.cat([1 - strongest, torch.where(maps == strongest, maps, 0)], 1)


def background_similarity_loss(
    original: Tensor, merged: Tensor, present: Tensor, *, foreground: bool = True, average: Average = "all"
) -> Tensor:
    r"""Compute the distance of the original view's background planes from those of the merged maps (Qin et al., 2024).

    .. math:: L_{bs} = \overline{|M_b - \hat M_b|} \qquad (6)

    The bar is a mean over all positions of all planes of the batch: the background and the classes of each image, of
    which absent ones count as 0. The merged maps are the target and get no gradient.

    Args:
        original: M_o, max-normalised, [N,C,h,w].
        merged: merged maps of the adjusted views, from `merge_maps`, of the same shape.
        present: 1 where image n shows class c, [N,C].
        foreground: compare the planes of the classes, too, not only the background plane.
        average: see `similarity_loss`; the background plane is always counted.

    Raises:
        InputError: the shapes do not fit together.

    >>> original, merged = torch.tensor([[[[0.5, 1.0]]]]), torch.tensor([[[[0.7, 1.0]]]])
    >>> background_similarity_loss(original, merged, torch.tensor([[1]]))
    tensor(0.1000)
    """
    shown = broadcast_labels(present, original, merged)
    planes = make_background_planes(original, present, foreground=foreground)
    wanted = make_background_planes(merged.detach(), present, foreground=foreground)
    background = torch.ones_like(shown[:, :1])
    return _mean_difference(planes, wanted, torch.cat([background, shown], 1) if foreground else background, average)


def _mean_difference(one: Tensor, other: Tensor, shown: Tensor, average: Average) -> Tensor:
    """Compute the mean absolute difference over the planes in `shown`, bool [N,C,1,1]; other planes count as 0 or not.

    It is 0 if no plane is in `shown`.
    """
    difference = torch.where(shown, (_widen(one) - _widen(other)).abs(), 0)
    positions = one.shape[2] * one.shape[3]
    if average == "all":
        return difference.sum() / (shown.numel() * positions)
    return difference.sum() / (shown.sum() * positions).clamp_min(1)


def _widen(x: Tensor) -> Tensor:
    """Convert half precision to float32, which keeps small differences and does not overflow in the sum."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
