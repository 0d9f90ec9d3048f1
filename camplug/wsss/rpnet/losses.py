"""Self-supervised loss of RPNet between the class maps of its two branches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.tensor_ops import widen
from camplug.wsss.classifier.maps import check_labels, normalize_maps


def self_supervised_loss(target: Tensor, plain: Tensor, present: Tensor) -> Tensor:
    r"""Compute the mean squared difference between the class maps of the two branches.

    .. math:: L_s = \overline{(S - R)^2}

    (Liu et al., RPNet, eq. 13 as in the authors' code: S and R are class maps of the present classes, each divided by
    its maximum, not features; the bar is a mean over images, all classes and positions, not the printed sum.) The total
    loss is L_c + 10 L_s with the multi-label soft margin loss of the plain branch as L_c: eq. 12 as printed is not a
    cross-entropy, since the logarithm for absent classes is taken of exp(-v / (1 + exp(-v))) instead of
    exp(-v) / (1 + exp(-v)).

    Args:
        target: class maps of the enhanced branch before normalisation, [N,C,h,w], such as those of `average_maps`. They
            get a gradient, too; detach them to avoid it.
        plain: class maps of the plain branch, [N,C,h,w].
        present: 1 where image n shows class c, [N,C].

    Returns:
        A scalar of at least float32; 0 where no class is present.

    Raises:
        InputError: the shapes do not fit together.

    >>> maps = torch.tensor([[[[4.0, 2.0]], [[1.0, 3.0]]]])
    >>> self_supervised_loss(maps.flip(3), maps, torch.tensor([[1, 0]])).round(decimals=3)
    tensor(0.1250)
    """
    if target.shape != plain.shape:
        raise InputError(
            f"class maps {list(target.shape)} and {list(plain.shape)} differ; resize them to one size [N,C,h,w]."
        )
    check_labels(plain, present)
    wanted, found = (normalize_maps(widen(maps), present) for maps in (target, plain))
    return (wanted - found).square().mean()


def average_maps(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    r"""Average the positive part of class maps over scales, at one size: the target of eq. 13.

    .. math:: S = \frac{1}{|K|} \sum_{k \in K} \mathrm{resize}(\mathrm{relu}(M_k))

    The authors average the scales 1, 0.5, 1.5 and 2 of the enhanced branch; only scale 1 has a gradient there.

    Args:
        maps: M_k, class maps [N,C,h_k,w_k] of each scale.
        size: (h, w) of the result; bilinear, corners not aligned.

    Returns:
        [N,C,h,w], at least float32.

    Raises:
        InputError: there are no maps, they differ in images or classes, or the size is not positive.

    >>> average_maps([torch.tensor([[[[1.0, -1.0]]]]), torch.tensor([[[[3.0]]]])], (1, 2))
    tensor([[[[2.0000, 1.5000]]]])
    """
    if not maps:
        raise InputError("no class maps given; give those of at least one scale.")
    if any(each.ndim != 4 or each.shape[:2] != maps[0].shape[:2] for each in maps):
        raise InputError(
            f"class maps are {[list(each.shape) for each in maps]}; give [N,C,h,w], the same images and classes."
        )
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"size={size}; give (height, width) of 1 or more.")
    planes = [F.interpolate(widen(each).relu(), size, mode="bilinear", align_corners=False) for each in maps]
    return torch.stack(planes).mean(0)
