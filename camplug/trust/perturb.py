"""Steps that the curves share: baselines, orders of pixels, and maps moved to random places."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from camplug.errors import InputError

Baseline: TypeAlias = "Literal['blur', 'mean', 'zero'] | Tensor"
"""Kinds of images that hold no evidence, or such images [N,C,H,W]."""

_KINDS = ("blur", "mean", "zero")


def make_baseline(x: Tensor, kind: Baseline) -> Tensor:
    """Return images without evidence, [N,C,H,W], for images of the same shape.

    - "blur": Gaussian blur with a standard deviation of a twentieth of the shorter side, at least 1 pixel.
    - "mean": mean colour of each image.
    - "zero": 0 in the numbers that the model reads; with the usual normalisation the mean colour of its training set.

    Args:
        x: images [N,C,H,W].
        kind: one of these, or the baseline itself.

    Raises:
        InputError: the kind is unknown, or a given baseline does not fit the images.

    >>> make_baseline(torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]]), "mean")
    tensor([[[[2., 2.],
              [2., 2.]]]])
    """
    if isinstance(kind, Tensor):
        try:
            return kind.to(x).expand_as(x)
        except RuntimeError:
            raise InputError(f"the baseline is {list(kind.shape)} for images {list(x.shape)}.") from None
    if kind == "zero":
        return torch.zeros_like(x)
    if kind == "mean":
        return x.mean((2, 3), keepdim=True).expand_as(x)
    if kind == "blur":
        return blur(x, max(min(x.shape[2:]) / 20, 1.0))
    raise InputError(f"baseline={kind!r}; allowed are {', '.join(map(repr, _KINDS))} and a tensor [N,C,H,W].")


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur images [N,C,H,W] with a Gaussian of three standard deviations to each side; edges are repeated."""
    h, w = (_make_blur_matrix(length, sigma).to(x) for length in x.shape[2:])
    return h @ x @ w.T  # faster than convolutions of one channel


def _make_blur_matrix(length: int, sigma: float) -> Tensor:
    """Make the matrix [length,length] whose row i holds the weights of the positions around i."""
    offsets = torch.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1)
    weights = torch.exp(-(offsets.double() ** 2) / (2 * sigma**2))
    place = (torch.arange(length)[:, None] + offsets).clamp(0, length - 1)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.scatter_add_(1, place, (weights / weights.sum()).expand(length, -1))


def rank_pixels(maps: Tensor, seed: int = 0) -> Tensor:
    """Return the rank of each pixel of maps [M,H,W], 0 for the largest value; equal values are ordered at random.

    Args:
        maps: [M,H,W].
        seed: seed of the order of equal values, the same in all maps.

    >>> rank_pixels(torch.tensor([[[0.5, 0.9], [0.1, 0.7]]]))
    tensor([[[2, 0],
             [3, 1]]])
    """
    flat = maps.flatten(1).cpu()
    shuffle = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed))
    order = shuffle[flat[:, shuffle].argsort(dim=1, descending=True, stable=True)]
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(flat.shape[1]).expand_as(order))
    return ranks.view(maps.shape)


def count_pixels(fractions: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the numbers of pixels of fractions of an image, rounded to whole numbers."""
    return (fractions * (size[0] * size[1])).round().long()


def move_maps(maps: Tensor, count: int, seed: int = 0) -> Tensor:
    """Return maps moved to random places, [M,count,H,W]; what leaves on one side enters on the other.

    They have the values, the smoothness and the shape of the map and only the place is random, which makes them the
    fair chance level: single pixels deleted at random harm a network more than a region does.

    Args:
        maps: [M,H,W].
        count: number of places.
        seed: seed of the places, which are the same in all maps.
    """
    generator = torch.Generator().manual_seed(seed)
    h, w = maps.shape[1:]
    ys, xs = (torch.randint(n, (count,), generator=generator).tolist() for n in (h, w))
    return torch.stack([maps.roll((y, x), (1, 2)) for y, x in zip(ys, xs, strict=True)], 1)


def check_maps(x: Tensor, maps: Tensor) -> None:
    """Check that maps [N,H,W] belong to images [N,C,H,W].

    Raises:
        InputError: the shapes differ, or a map holds NaN.
    """
    if maps.ndim != 3 or maps.shape[1:] != x.shape[2:] or len(maps) != len(x):
        raise InputError(f"the maps are {list(maps.shape)} for images {list(x.shape)}; give one map [H,W] per image.")
    if bool(maps.isnan().any()):
        raise InputError("a map holds NaN; its pixels have no order.")
