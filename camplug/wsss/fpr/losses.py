"""Region contrast loss of FPR."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.plug import send_to
from camplug.wsss.classifier.maps import check_labels
from camplug.wsss.fpr.prototypes import Prototypes
from camplug.wsss.fpr.regions import make_class_masks, masked_mean

EPS = 1e-4  # in the normalisation of maps and under the root of distances, as in the authors' code
LEAST = 1e-5  # lower bound of 1 - S

Distance = Literal["rms", "l2"]
ContrastDistance = Literal["rms", "l2", "spread"]


class RegionContrast(NamedTuple):
    """Result of `region_contrast_loss`.

    Attributes:
        loss: positive + negative.
        positive, negative: means (or sums) over the regions.
        pairs: number of regions, pairs of an image and a class.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor
    pairs: Tensor


def distances(a: Tensor, b: Tensor, kind: Distance = "rms") -> Tensor:
    r"""Compute distances of features.

    "rms", as in the authors' code, and "l2", as in the paper:

    .. math:: d = \sqrt{\tfrac1D \textstyle\sum_j \left((a_j - b_j)^2 + 10^{-4}\right)}, \qquad
              d = \sqrt{10^{-4} + \textstyle\sum_j (a_j - b_j)^2}

    The second is about sqrt(D) times the first, 45 times for 2048 channels; neither is below 0.01.

    Args:
        a: [...,D].
        b: [...,D], broadcast with a.
        kind: "rms" or "l2".

    Raises:
        InputError: the kind is unknown.

    >>> distances(torch.tensor([1.0, 7.0]), torch.tensor([4.0, 3.0]), "l2")
    tensor(5.0000)
    """
    squares = (a - b).square()
    if kind == "rms":
        return (squares.mean(-1) + EPS).sqrt()
    if kind == "l2":
        return (squares.sum(-1) + EPS).sqrt()
    raise InputError(f'distance={kind!r}; give "rms" (the authors\' code) or "l2" (the paper).')


def region_contrast_loss(
    features: Tensor,
    class_maps: Tensor,
    present: Tensor,
    prototypes: Prototypes,
    *,
    theta: float = 0.1,
    temperature: float = 13.0,
    offset: float = 0.1,
    distance: ContrastDistance = "rms",
    reduction: Literal["mean", "sum"] = "mean",
) -> RegionContrast:
    r"""Pull the region of each present class to its positive prototypes and push it off its nearest negative one.

    .. math:: L_{RC} = -\overline{\log S(d(f_c, \bar P_{pos}^c)) + \log(1 - S(\min_k d(f_c, P_{neg}^{c,k})))},
              \qquad S(d) = \exp(-(d / T + o))

    (Chen et al., ICCV 2023, eqs. 4 and 5; f of eq. 3, over the mask of eq. 2; the weight in the paper is 0.12.) The bar
    is the mean over all regions of the batch, pairs of an image and a present class. Pairs with an empty mask or
    without positive prototypes are left out; pairs without negative ones have the positive part only. All negatives
    count, also those that are not `usable`. The defaults are those of the authors' code; the paper has the L2 distance
    and offset 0. 1 - S is bounded below by 1e-5, so the negative part is at most 11.5.

    Only the features get a gradient: prototypes and masks are constant.

    Args:
        features: F, [N,D,h,w].
        class_maps: M, [N,C,h,w].
        present: y, 1 where image n shows class c, [N,C]; on the CPU it needs no synchronisation.
        prototypes: prototypes of the C classes.
        theta: threshold of the normalised class maps.
        temperature: T, above 0.
        offset: o, at least 0; it bounds the negative part by -log(1 - exp(-o)), 2.35 at 0.1.
        distance: "rms" or "l2" (see `distances`), or "spread" (ours), rms over `Prototypes.spread`, with temperature 1.
        reduction: "mean" over pairs, or "sum", for division by the number of pairs of several processes.

    Returns:
        Scalars; 0 with a graph where there are no pairs.

    Raises:
        InputError: the shapes do not fit together, or an option is out of range.
    """
    if temperature <= 0 or offset < 0:
        raise InputError(f"temperature={temperature} and offset={offset}; give one above 0 and one of at least 0.")
    if reduction not in ("mean", "sum"):
        raise InputError(f'reduction={reduction!r}; give "mean" or "sum".')
    shown = check_inputs(features, class_maps, present, prototypes).nonzero().tolist()
    pairs, masks = [(n, c) for n, c in shown if len(prototypes.positive[c])], make_class_masks(class_maps, theta, EPS)
    if not pairs:
        nothing = masked_mean(features, masks[:, :0]).sum()  # 0 with a graph
        return RegionContrast(nothing, nothing, nothing, torch.zeros((), dtype=torch.int64, device=features.device))
    image, of, column, used = _numbers(pairs, features.device)
    masks = masks.index_select(1, used)
    f = masked_mean(features, masks)[image, column]  # of every pair, [P,D]
    counted = masks.flatten(2).any(2)[image, column]
    parts = _compare_regions(f, [x.to(features.device)[of] for x in prototypes.padded], temperature, offset, distance)
    count = counted.sum()
    share = count.clamp_min(1) if reduction == "mean" else 1
    positive, negative = (torch.where(counted, part, 0).sum() / share for part in parts)
    return RegionContrast(positive + negative, positive, negative, count)


def _compare_regions(
    f: Tensor, prototypes: list[Tensor], temperature: float, offset: float, distance: ContrastDistance
) -> tuple[Tensor, Tensor]:
    """Compute the positive and the negative part of the loss of each region [P].

    Args:
        f: features of the regions [P,D].
        prototypes: positive prototypes [P,D], negative ones [P,K,D], a mask of those that exist [P,K], and the spread
            of the positive ones [P].
        temperature, offset, distance: see `region_contrast_loss`.
    """
    centre, others, there, spread = prototypes
    kind: Distance = "rms" if distance == "spread" else distance
    unit = temperature * spread.to(f) if distance == "spread" else torch.full_like(spread, temperature).to(f)
    pull = distances(f, centre.to(f), kind) / unit + offset
    if not others.shape[1]:
        return pull, torch.zeros_like(pull)
    gaps = distances(f[:, None], others.to(f), kind)
    exponent = gaps.masked_fill(~there, torch.inf).amin(1) / unit + offset  # infinite without negatives
    return pull, -(-torch.expm1(-exponent)).clamp_min(LEAST).log()


def _numbers(pairs: list[tuple[int, int]], device: torch.device) -> list[Tensor]:
    """Split pairs of an image and a class into images, classes, positions among the used classes, and used classes.

    They are sent to the device together, without synchronisation.
    """
    used = sorted({c for _, c in pairs})
    place = {c: k for k, c in enumerate(used)}
    numbers = [*(n for n, _ in pairs), *(c for _, c in pairs), *(place[c] for _, c in pairs), *used]
    return list(torch.split(send_to(torch.tensor(numbers), device), [len(pairs)] * 3 + [len(used)]))


def check_inputs(features: Tensor, class_maps: Tensor, present: Tensor, prototypes: Prototypes) -> Tensor:
    """Check features [N,D,h,w], class maps [N,C,h,w] and prototypes; return the labels as bool [N,C] on the CPU.

    Raises:
        InputError: they do not fit together.
    """
    check_labels(class_maps, present)
    shown = present.detach().cpu() > 0
    if features.ndim != 4 or features.shape[::2] + features.shape[3:] != class_maps.shape[::2] + class_maps.shape[3:]:
        raise InputError(
            f"features {list(features.shape)} and class maps {list(class_maps.shape)} do not fit; "
            "give [N,D,h,w] and [N,C,h,w] of one grid."
        )
    widths = {x.shape[1] for x in (*prototypes.positive, *prototypes.negative) if len(x)}
    if len(prototypes.positive) != shown.shape[1] or widths - {features.shape[1]}:
        raise InputError(
            f"prototypes of {len(prototypes.positive)} classes and {min(widths, default=0)} channels, but "
            f"{shown.shape[1]} class maps and {features.shape[1]} channels; collect prototypes from this network."
        )
    return shown
