"""Pixel rectification loss of FPR."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from camplug.wsss.fpr.losses import EPS, check_inputs
from camplug.wsss.fpr.prototypes import Prototypes
from camplug.wsss.fpr.regions import make_class_masks


class PixelRectification(NamedTuple):
    """Result of `pixel_rectification_loss`.

    Attributes:
        loss: mean over the false-positive pixels.
        pixels: number of these pixels.
    """

    loss: Tensor
    pixels: Tensor


def false_positive_pixels(
    features: Tensor, class_maps: Tensor, present: Tensor, prototypes: Prototypes, *, theta: float = 0.1
) -> Tensor:
    r"""Find the pixels of a present class's region that are closer to a false positive than to the class.

    .. math:: \Phi_c = \{i : \min_k \|F^i - P_{neg}^{c,k}\| < \min_k \|F^i - P_{pos}^{c,k}\|,\ A_c^i = 1\}

    (Chen et al., ICCV 2023, eq. 8: only `usable` negatives.) Empty for classes without usable negatives or without
    positives. The result is the same for all monotonic functions of the distance.

    Args:
        features: F, [N,D,h,w].
        class_maps: M, [N,C,h,w].
        present: y, 1 where image n shows class c, [N,C]; on the CPU it needs no synchronisation.
        prototypes: prototypes of the C classes.
        theta: threshold of the normalised class maps.

    Returns:
        bool [N,C,h,w], without gradient.

    Raises:
        InputError: the shapes do not fit together, or theta is out of range.
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
    r"""Compute the mean class-map value, without ReLU, of all pixels from `false_positive_pixels`.

    .. math:: L_{PR} = \frac{1}{\sum_c y_c |\Phi_c|} \sum_c y_c \sum_{i \in \Phi_c} M_c^i

    (Chen et al., ICCV 2023, eq. 7, over the whole batch; the weight in the paper is 15e-5.) The class maps get the
    gradient.

    Args:
        features: F, [N,D,h,w].
        class_maps: M, [N,C,h,w].
        present: y, 1 where image n shows class c, [N,C]; on the CPU it needs no synchronisation.
        prototypes: prototypes of the C classes.
        theta: threshold of the normalised class maps.

    Returns:
        The loss, 0 with a graph where no pixel is found, and the number of pixels.

    Raises:
        InputError: the shapes do not fit together, or theta is out of range.
    """
    found = false_positive_pixels(features, class_maps, present, prototypes, theta=theta)
    pixels = found.sum()
    values = torch.where(found, class_maps.to(_get_dtype(class_maps)), 0)  # indexing would synchronise with the device
    return PixelRectification(values.sum() / pixels.clamp_min(1), pixels)


def _compute_gaps(pixels: Tensor, points: Tensor) -> Tensor:
    """Compute squared distances [k,P] of pixels [D,P] to points [k,D], up to a constant per pixel.

    |x - p|^2 = |x - m|^2 + |p - m|^2 - 2 (x - m) (p - m), without the first term. With m as the mean of the points,
    rounding errors are small, and no tensor of size [k,D,P] is needed.
    """
    middle = points.mean(0)
    arms = points - middle
    return arms.square().sum(1, keepdim=True) - 2 * arms @ (pixels - middle[:, None])


def _get_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
