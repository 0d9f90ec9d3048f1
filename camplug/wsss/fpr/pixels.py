"""FPR's loss on pixels: those that are nearer to a false positive than to their class are pushed down."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from camplug.wsss.fpr.losses import EPS, check_inputs
from camplug.wsss.fpr.prototypes import Prototypes
from camplug.wsss.fpr.regions import make_class_masks


class PixelRectification(NamedTuple):
    """What `pixel_rectification_loss` returns: the mean over `pixels` false positives, and how many these are."""

    loss: Tensor
    pixels: Tensor


def false_positive_pixels(
    features: Tensor, class_maps: Tensor, present: Tensor, prototypes: Prototypes, *, theta: float = 0.1
) -> Tensor:
    r"""Pixels of a present class's region that are nearer to a false positive than to the class.

    .. math:: \Phi_c = \{i : \min_k \|F^i - P_{neg}^{c,k}\| < \min_k \|F^i - P_{pos}^{c,k}\|,\ A_c^i = 1\}

    (Chen et al., ICCV 2023, eq. 8: only `usable` negatives.) Empty for classes without usable negatives or without
    positives. Which distance is taken does not matter, since only its order does.

    Args:
        features: F, [N,D,h,w].
        class_maps: M, [N,C,h,w].
        present: y, 1 where image n shows class c, [N,C]; on the CPU it is read without waiting for the device.
        prototypes: of the C classes.
        theta: threshold of the normalised class maps.

    Returns:
        bool [N,C,h,w], without gradient.

    Raises:
        InputError: shapes that do not fit together, or theta out of range.
    """
    shown = check_inputs(features, class_maps, present, prototypes)
    masks = make_class_masks(class_maps, theta, EPS)
    found = torch.zeros_like(masks)
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        for n, c in shown.nonzero().tolist():
            positive, negative = prototypes.positive[c], prototypes.usable_negatives[c]
            if len(positive) and negative is not None:
                both = torch.cat([positive, negative]).to(features.device, _get_dtype(features))
                gaps = _compute_gaps(features[n].flatten(1).to(both), both)
                own, other = gaps[: len(positive)], gaps[len(positive) :]
                found[n, c] = masks[n, c] & (other.amin(0) < own.amin(0)).view_as(masks[n, c])
    return found


def pixel_rectification_loss(
    features: Tensor, class_maps: Tensor, present: Tensor, prototypes: Prototypes, *, theta: float = 0.1
) -> PixelRectification:
    r"""The mean class-map value, not rectified, of all pixels that `false_positive_pixels` finds.

    .. math:: L_{PR} = \frac{1}{\sum_c y_c |\Phi_c|} \sum_c y_c \sum_{i \in \Phi_c} M_c^i

    (Chen et al., ICCV 2023, eq. 7, over the whole batch; the paper weighs it with 15e-5.) The gradient goes through the
    class maps, and so into the head and what lies below it.

    Args:
        features: F, [N,D,h,w].
        class_maps: M, [N,C,h,w].
        present: y, 1 where image n shows class c, [N,C]; on the CPU it is read without waiting for the device.
        prototypes: of the C classes.
        theta: threshold of the normalised class maps.

    Returns:
        The loss, 0 with a graph where no pixel is found, and the number of pixels.

    Raises:
        InputError: shapes that do not fit together, or theta out of range.
    """
    found = false_positive_pixels(features, class_maps, present, prototypes, theta=theta)
    pixels = found.sum()
    values = torch.where(found, class_maps.to(_get_dtype(class_maps)), 0)  # by index it would wait for the device
    return PixelRectification(values.sum() / pixels.clamp_min(1), pixels)


def _compute_gaps(pixels: Tensor, points: Tensor) -> Tensor:
    """Squared distances of pixels [D,P] to points [k,D], less what all distances of a pixel share: [k,P].

    |x - p|^2 = |x - m|^2 + |p - m|^2 - 2 (x - m) (p - m). Without the first term, and with m amid the points, little is
    lost to rounding; nothing of size [k,D,P] is built.
    """
    middle = points.mean(0)
    arms = points - middle
    return arms.square().sum(1, keepdim=True) - 2 * arms @ (pixels - middle[:, None])


def _get_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
