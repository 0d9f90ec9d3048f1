"""Agreement of maps with masks or boxes of the objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.tensor_ops import safe_divide


def pointing_game(maps: Tensor, masks: Tensor, *, tolerance: int = 0) -> Tensor:
    r"""Compute whether the largest value of each map lies in its object, 1 or 0 per image; higher is better.

    .. math:: P = [\exists\, i: m_i = \max m,\; i \in M]

    Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018 (https://arxiv.org/abs/1608.00507). A
    constant map points nowhere and counts as 0.

    Args:
        maps: maps [N,H,W].
        masks: bool [N,H,W], true in the object; see `fill_boxes` for boxes.
        tolerance: distance in pixels (rows or columns, whichever is larger) that still counts as a hit.

    Raises:
        InputError: the masks do not fit the maps, or the tolerance is negative.

    >>> pointing_game(torch.tensor([[[0.1, 0.9]]]), torch.tensor([[[False, True]]]))
    tensor([1.])
    """
    masks = _check_masks(maps, masks)
    if tolerance < 0:
        raise InputError(f"tolerance={tolerance}; give 0 or more pixels.")
    near = masks.to(maps.dtype)
    if tolerance:
        near = F.max_pool2d(near[:, None], 2 * tolerance + 1, stride=1, padding=tolerance)[:, 0]
    peak = maps.amax((1, 2), keepdim=True)
    hit = ((maps == peak) & (near > 0)).flatten(1).any(1)
    return (hit & (maps.amin((1, 2)) < peak.flatten())).to(maps.dtype)


def energy_pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    r"""Compute the share of each map that lies in its object, [N] in [0, 1]; higher is better.

    .. math:: E = \frac{\sum_{i \in M} \max(m_i, 0)}{\sum_i \max(m_i, 0)}

    Wang et al., Score-CAM, CVPRW 2020 (https://arxiv.org/abs/1910.01279). An empty map counts as 0. Arguments and
    errors are those of `pointing_game`.

    >>> energy_pointing_game(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[False, True]]]))
    tensor([0.7500])
    """
    masks = _check_masks(maps, masks)
    positive = maps.clamp_min(0)
    return safe_divide((positive * masks).sum((1, 2)), positive.sum((1, 2)))


def fill_boxes(boxes: Sequence[Sequence[Sequence[float]]], size: tuple[int, int]) -> Tensor:
    """Return masks [N,H,W] that are true inside of boxes.

    Args:
        boxes: per image its boxes (left, top, right, bottom) in pixels, right and bottom exclusive.
        size: height and width.

    >>> fill_boxes([[(1, 0, 2, 1)]], (1, 3))
    tensor([[[False,  True, False]]])
    """
    masks = torch.zeros((len(boxes), *size), dtype=torch.bool)
    for mask, own in zip(masks, boxes, strict=True):
        for left, top, right, bottom in own:
            mask[max(0, round(top)) : max(0, round(bottom)), max(0, round(left)) : max(0, round(right))] = True
    return masks


def _check_masks(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the masks as bool on the maps' device."""
    if maps.ndim != 3 or masks.shape != maps.shape:
        raise InputError(f"the masks are {list(masks.shape)} for maps {list(maps.shape)}; give one mask [H,W] per map.")
    return masks.to(maps.device).bool()
