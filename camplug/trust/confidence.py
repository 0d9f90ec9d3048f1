"""Changes of the probability when the image is masked by its map."""

from __future__ import annotations

from torch import Tensor

from camplug.explain.fuse import normalize_map
from camplug.explain.tensor_ops import safe_divide
from camplug.trust.perturb import Baseline, check_maps, make_baseline


def mask_images(x: Tensor, maps: Tensor, baseline: Baseline = "zero") -> Tensor:
    r"""Multiply images by their maps.

    .. math:: \tilde x = b + m \odot (x - b)

    with the map m divided by its maximum and negative values set to 0.

    Args:
        x: images [N,C,H,W].
        maps: maps [N,H,W].
        baseline: image that shows where the map is 0, see `make_baseline`.

    Raises:
        InputError: the maps do not fit the images.
    """
    check_maps(x, maps)
    base = make_baseline(x, baseline)
    weights = normalize_map(maps.clamp_min(0), "max").to(x)[:, None]
    return base + weights * (x - base)


def confidence_drop(before: Tensor, after: Tensor) -> Tensor:
    r"""Compute the relative drop of the probability per image; its mean is the average drop, lower is better.

    .. math:: D = \frac{\max(0, s(x) - s(\tilde x))}{s(x)}

    Chattopadhyay et al., Grad-CAM++, WACV 2018 (https://arxiv.org/abs/1710.11063). 0 where s(x) = 0.

    Args:
        before: probabilities [N] of the images.
        after: probabilities [N] of the masked images, see `mask_images`.

    >>> import torch
    >>> confidence_drop(torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.6]))
    tensor([0.7500, 0.0000])
    """
    return safe_divide((before - after).clamp_min(0), before)


def confidence_increase(before: Tensor, after: Tensor) -> Tensor:
    r"""Compute whether the probability rises, 1 or 0 per image; higher is better.

    Its mean is the increase in confidence.

    .. math:: I = [s(\tilde x) > s(x)]

    Chattopadhyay et al., 2018. Arguments are those of `confidence_drop`.

    >>> import torch
    >>> confidence_increase(torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.6]))
    tensor([0., 1.])
    """
    return (after > before).to(before.dtype)


def confidence_gain(before: Tensor, after: Tensor) -> Tensor:
    r"""Compute the relative gain of the probability per image; its mean is the average gain, higher is better.

    .. math:: G = \frac{\max(0, s(\tilde x) - s(x))}{1 - s(x)}

    Zhang et al., Opti-CAM, CVIU 2024 (https://arxiv.org/abs/2301.07002). 0 where s(x) = 1. Arguments are those of
    `confidence_drop`.

    >>> import torch
    >>> confidence_gain(torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.6]))
    tensor([0.0000, 0.2000])
    """
    return safe_divide((after - before).clamp_min(0), 1 - before)
