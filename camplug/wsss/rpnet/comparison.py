"""Foreground probability: similarity of positions to the regions of all images of a group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.tensor_ops import widen
from camplug.wsss.rpnet.regions import (
    PEAK_EPS,
    check_features,
    compute_prototypes,
    drop_positions,
    find_confident_regions,
)
from camplug.wsss.rpnet.smoothing import Border, smooth_maps

NORM_EPS = 1e-8
LARGEST_GROUP = 4


def region_similarity(features: Tensor, prototypes: Tensor) -> Tensor:
    r"""Compute the cosine between the features of every position and prototypes.

    .. math:: s_p(x) = \frac{p \cdot f(x)}{|p| \, |f(x)|}

    (Liu et al., RPNet, eq. 7, with features of the prototypes' own block.) Vectors not longer than 1e-8 get 0 without a
    gradient, which would be of the order of 1e8.

    Args:
        features: f, [N,D,h,w].
        prototypes: P prototypes of each image, [N,P,D].

    Returns:
        [N,P,h,w] in [-1, 1] up to rounding, at least float32, also in autocast.

    Raises:
        InputError: the shapes do not fit together.

    >>> region_similarity(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.tensor([[[2.0, 0.0]]]))
    tensor([[[[0.6000]]]])
    """
    check_features(features)
    if prototypes.ndim != 3 or prototypes.shape[::2] != features.shape[:2]:
        raise InputError(
            f"features {list(features.shape)} and prototypes {list(prototypes.shape)} do not fit; "
            "give [N,D,h,w] and [N,P,D]."
        )
    with torch.autocast(features.device.type, enabled=False):
        flat = widen(features).flatten(2)
        wanted = prototypes.to(flat)
        length = torch.linalg.vector_norm(flat, dim=1)[:, None]  # [N,1,hw]
        wanted_length = torch.linalg.vector_norm(wanted, dim=2, keepdim=True)  # [N,P,1]
        known = (length > NORM_EPS) & (wanted_length > NORM_EPS)
        # clamped before the division, since the branch not taken by `where` needs a finite gradient, too
        cosine = wanted @ flat / (length.clamp_min(NORM_EPS) * wanted_length.clamp_min(NORM_EPS))
        return torch.where(known, cosine, 0).view(*cosine.shape[:2], *features.shape[2:])


def foreground_probability(
    blocks: Sequence[Tensor],
    *,
    group: int = 2,
    threshold: float = 0.3,
    keep: float = 0.5,
    scale: float = 1.3,
    sigma: float = 3.0,
    window: int = 5,
    border: Border = "normalized",
    generator: torch.Generator | None = None,
    smooth: bool = True,
    drop: bool = True,
    region: Tensor | None = None,
) -> Tensor:
    r"""Compute the resemblance of each position to the confident regions of all images of its group.

    .. math:: s(x) = \max_{n, \, i, \, M} \cos(p_{n,i,M}, f_n(x)), \qquad
              \hat F(x) = G * \frac{1.3 \, \mathrm{relu}(s(x))}{\max_{x'} \mathrm{relu}(s(x')) + 10^{-5}}

    (Liu et al., RPNet, eq. 5 to 9 as in the authors' code.) The maximum is over the blocks n, the images i of the group
    including the image itself, and the two masks M: the confident region and a random part of it, drawn for each block
    (Z of eq. 6). Eq. 7 as printed compares the prototypes of all blocks with the last block's features; since these are
    different spaces, the prototypes of each block are compared with that block's features.

    The masks are hard. The gradient goes through the prototypes, the features and the spatial maximum; detach blocks
    that must not learn from it (the authors detach stage 2).

    Args:
        blocks: feature maps [N,D_n,h,w] on one grid; channels may differ. The first one is that of the last stage,
            whose confident regions are used for all blocks, unless `region` is given.
        group: k, images that share a class; N is a multiple of k, and images g*k .. g*k + k-1 form a group. 1 compares
            within each image only.
        threshold: see `find_confident_regions`.
        keep: see `drop_positions`.
        scale: factor of the normalised map, so that the best positions exceed 1.
        sigma, window, border: see `smooth_maps`.
        generator: random generator of the dropping, on the CPU.
        smooth: apply the Gaussian.
        drop: use the prototypes of random parts, too.
        region: confident regions, bool [N,h,w]; None uses those of the first block.

    Returns:
        F, [N,1,h,w] in [0, scale); 0 where no image of the group has a confident region.

    Raises:
        InputError: the blocks do not fit together or into groups, or an option is not allowed.

    >>> blocks = [torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[2.0, 2.0]], [[0.0, 0.0]]]])]
    >>> foreground_probability(blocks[:1], group=1, smooth=False)[1].round(decimals=3)
    tensor([[[1.3000, 1.3000]]])
    """
    _check(blocks, group, scale)
    region = find_confident_regions(blocks[0], threshold) if region is None else region
    masks = [[region, drop_positions(region, keep, generator)] if drop else [region] for _ in blocks]
    best = [_compare_with_group(features, own, group) for features, own in zip(blocks, masks, strict=True)]
    positive = torch.cat(best, 1).amax(1, keepdim=True).relu()
    probability = scale * positive / (positive.amax((2, 3), keepdim=True) + PEAK_EPS)
    return smooth_maps(probability, sigma, window, border) if smooth else probability


def _compare_with_group(features: Tensor, masks: list[Tensor], group: int) -> Tensor:
    """Compute the largest similarity [N,1,h,w] to the prototypes of all masks [N,h,w] of the images of a group."""
    own = torch.stack([compute_prototypes(features, mask) for mask in masks], 1)  # [N,masks,D]
    shared = own.reshape(-1, group * own.shape[1], own.shape[2])  # [groups,group*masks,D]
    return region_similarity(features, shared.repeat_interleave(group, 0)).amax(1, keepdim=True)


def _check(blocks: Sequence[Tensor], group: int, scale: float) -> None:
    if not blocks:
        raise InputError("no block given; give at least the feature maps of the last stage.")
    for features in blocks:
        check_features(features)
    shapes = [list(features.shape) for features in blocks]
    if any([n, h, w] != [shapes[0][0], *shapes[0][2:]] for n, _, h, w in shapes):
        raise InputError(f"blocks are {shapes}; give the same images on the same grid, resized to the last stage's.")
    if not 1 <= group <= LARGEST_GROUP:
        raise InputError(f"group={group}; give 1 to {LARGEST_GROUP} images.")
    if shapes[0][0] % group:
        raise InputError(f"{shapes[0][0]} images are no groups of {group}; give a multiple of {group}.")
    if not scale > 0:
        raise InputError(f"scale={scale}; give a number above 0.")
