"""Merging of the class maps of two adjusted views into the target of the original image."""

from __future__ import annotations

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.classifier.maps import prepare_labels

BACKGROUND = 0.3  # IRN's constant plane
SURE = 0.5


def assign_classes(maps: Tensor, present: Tensor, background: float = BACKGROUND) -> Tensor:
    """Assign each position to the strongest present class, where it is above the background.

    The paper leaves the rule open; this is the usual argmax over the present classes and a constant background plane.
    (A background plane of 1 - max is the same as the constant 0.5.)

    Args:
        maps: max-normalised class maps, [N,C,h,w] in [0, 1].
        present: 1 where image n shows class c, [N,C].
        background: value of the background plane, in [0, 1]; it wins ties. Among equal classes the first one wins.

    Returns:
        Bool [N,C,h,w], at most one class per position.

    Raises:
        InputError: the shapes do not fit together, or the background is outside [0, 1].

    >>> maps = torch.tensor([[[[0.9, 0.2, 0.3]], [[0.4, 0.6, 0.1]]]])
    >>> assign_classes(maps, torch.tensor([[1, 1]]), 0.3).int()[0, :, 0]
    tensor([[1, 0, 0],
            [0, 1, 0]], dtype=torch.int32)
    """
    shown = prepare_labels(maps, present) != 0
    if not 0 <= background <= 1:
        raise InputError(f"background={background}; give a value from 0 to 1, as the maps have.")
    strongest, label = maps.detach().masked_fill(~shown[..., None, None], -1).max(1, keepdim=True)
    return torch.zeros_like(maps, dtype=torch.bool).scatter_(1, label, strongest > background)


def merge_maps(
    enhanced: Tensor, decreased: Tensor, present: Tensor, *, background: float = BACKGROUND, sure: float = SURE
) -> Tensor:
    r"""Merge the class maps of the enhanced and the decreased view (Qin et al., TCSVT 2024, section III-B).

    .. math:: P = \begin{cases}
              \max(P_e, P_d) & \text{both views belong to the class} \\
              \max(P_e, P_d) & \text{one view does, and } \max(P_e, P_d) > 0.5 \\
              0 & \text{one view does, but } \max(P_e, P_d) \le 0.5 \\
              0 & \text{neither view does}
              \end{cases}

    The result is a target and therefore detached.

    Args:
        enhanced: P_e, max-normalised, [N,C,h,w] in [0, 1].
        decreased: P_d, max-normalised, [N,C,h,w] in [0, 1].
        present: 1 where image n shows class c, [N,C]; absent classes get 0.
        background: see `assign_classes`.
        sure: the 0.5 of cases two and three, in [0, 1].

    Returns:
        [N,C,h,w] in [0, 1], without a gradient.

    Raises:
        InputError: the shapes do not fit together, or a number is outside [0, 1].

    >>> enhanced = torch.tensor([[[[0.4, 0.7, 0.5, 0.1]]]])
    >>> decreased = torch.tensor([[[[0.35, 0.2, 0.2, 0.3]]]])
    >>> merge_maps(enhanced, decreased, torch.tensor([[1]]))
    tensor([[[[0.4000, 0.7000, 0.0000, 0.0000]]]])
    """
    broadcast_labels(present, enhanced, decreased)
    if not 0 <= sure <= 1:
        raise InputError(f"sure={sure}; give a value from 0 to 1, as the maps have.")
    enhanced, decreased = enhanced.detach(), decreased.detach()
    one, other = assign_classes(enhanced, present, background), assign_classes(decreased, present, background)
    confidence = torch.maximum(enhanced, decreased)
    kept = (one & other) | ((one | other) & (confidence > sure))
    return torch.where(kept, confidence, 0)


def broadcast_labels(present: Tensor, *maps: Tensor) -> Tensor:
    """Convert labels to bool [N,C,1,1] on the device of class maps of one shape [N,C,h,w].

    Raises:
        InputError: the labels do not fit, or the maps differ in shape.
    """
    if len({m.shape for m in maps}) > 1:
        shapes = ", ".join(str(list(m.shape)) for m in maps)
        raise InputError(f"class maps of different shapes {shapes}; give maps of one shape [N,C,h,w].")
    return (prepare_labels(maps[0], present) != 0)[..., None, None]
