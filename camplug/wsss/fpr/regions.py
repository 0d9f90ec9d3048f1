"""Active regions of class maps and their mean features."""

from __future__ import annotations

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.wsss.classifier.maps import EPS, normalize_maps


def make_class_masks(class_maps: Tensor, theta: float = 0.1, eps: float = EPS) -> Tensor:
    r"""Threshold each class map divided by its own maximum; absent classes are kept.

    .. math:: A_c = \mathbb{1}\left(\frac{\mathrm{relu}(M_c)}{\max \mathrm{relu}(M_c) + \epsilon} > \theta\right)

    (Chen et al., ICCV 2023, eq. 2; epsilon as in their code, 1e-5 for prototypes and 1e-4 in the losses.) A map
    without a positive value gives an empty mask.

    Args:
        class_maps: M, output of the 1x1 head, [N,C,h,w].
        theta: threshold, in [0, 1).
        eps: term of the denominator.

    Returns:
        bool [N,C,h,w], without gradient.

    Raises:
        InputError: the maps have another shape, or theta is out of range.

    >>> make_class_masks(torch.tensor([[[[-1.0, 0.2, 4.0]], [[-3.0, 0.0, -1.0]]]])).long()
    tensor([[[[0, 0, 1]],
             [[0, 0, 0]]]])
    """
    if class_maps.ndim != 4:
        raise InputError(f"class maps are [N,C,h,w]; got {list(class_maps.shape)}.")
    if not 0 <= theta < 1:
        raise InputError(f"theta={theta}; the threshold of class maps lies in [0, 1), 0.1 in the paper.")
    return normalize_maps(_widen(class_maps.detach()), eps=eps) > theta


def masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    r"""Compute the mean feature over a region, 0 where it is empty.

    .. math:: f_c = \frac{\sum_i A_c^i F^i}{\sum_i A_c^i}

    (Chen et al., ICCV 2023, eq. 3.) At least float32, also under autocast.

    Args:
        features: F, [N,D,h,w].
        mask: A, bool or weights of at least 0: [N,h,w], or [N,C,h,w] for C regions of each image.

    Returns:
        [N,D], or [N,C,D].

    Raises:
        InputError: the shapes do not fit together.

    >>> masked_mean(torch.tensor([[[[1.0, 3.0, 8.0]]]]), torch.tensor([[[True, True, False]]]))
    tensor([[2.]])
    """
    if mask.ndim == 3:
        return masked_mean(features, mask[:, None])[:, 0]
    if features.ndim != 4 or mask.ndim != 4 or _get_positions(features) != _get_positions(mask):
        raise InputError(
            f"features {list(features.shape)} and masks {list(mask.shape)} do not fit; "
            "give [N,D,h,w], and [N,h,w] or [N,C,h,w]."
        )
    with torch.autocast(features.device.type, enabled=False):
        values = _widen(features).flatten(2)
        weights = mask.flatten(2).to(values)
        sums = weights @ values.transpose(1, 2)
        total = weights.sum(2, keepdim=True)
        return sums / torch.where(total > 0, total, 1)


def _get_positions(x: Tensor) -> tuple[int, ...]:
    return x.shape[0], *x.shape[2:]


def _widen(x: Tensor) -> Tensor:
    """Convert half precision and integers to float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
