"""Losses of segmentation networks: cross-entropy, balanced, at several scales."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from camplug.wsss.data.dataset import IGNORE


def shrink_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize labels by Pillow's nearest rule, which differs from that of torch and OpenCV.

    Args:
        labels: [N,H,W].
        size: (h, w) of the grid.

    Returns:
        [N,h,w] of the same dtype: row y is row floor((y + 1/2) H / h), as in `PIL.Image.resize`.

    >>> shrink_labels(torch.arange(10)[None, None], (1, 4))
    tensor([[[1, 3, 6, 8]]])
    """
    if labels.shape[1:] == size:
        return labels
    for axis, target in ((1, size[0]), (2, size[1])):
        labels = labels.index_select(axis, _nearest(labels.shape[axis], target, labels.device))
    return labels


@lru_cache(maxsize=256)
def _nearest(length: int, target: int, device: torch.device) -> Tensor:
    """Return the selected rows, int64 [target]; cached on the device, since copying them would synchronise."""
    numbers = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    chosen = np.asarray(numbers.resize((target, 1), Image.Resampling.NEAREST))[0]
    with torch.inference_mode(False):
        return torch.tensor(chosen, dtype=torch.int64).to(device)


def count_pixels(labels: Tensor) -> Tensor:
    """Count background and object pixels, [2]; 255 is neither."""
    background = labels == 0
    return torch.stack([background.sum(), (labels != IGNORE).sum() - background.sum()])


def segmentation_loss(
    logits: Tensor, labels: Tensor, *, balanced: bool = False, counts: Tensor | None = None
) -> Tensor:
    r"""Compute the cross-entropy over labelled pixels.

    .. math:: L = -\frac1{|B \cup O|} \sum_{i \in B \cup O} \log p_{i, y_i} \qquad \text{or, balanced,} \qquad
        L = -\frac1{2|B|} \sum_{i \in B} \log p_{i,0} - \frac1{2|O|} \sum_{i \in O} \log p_{i, y_i}

    with the background pixels B and the object pixels O. If one kind is missing, the mean of the other has weight 1.
    The balanced loss follows the description of AdvCAM's segmentation networks ("similar to DSRG", Huang et al., CVPR
    2018); the weights 1/2 are ours.

    Args:
        logits: [N,K+1,h,w].
        labels: [N,h,w] integers, 0 background, c + 1 for class c, 255 ignored.
        balanced: weigh background and objects by 1/2 each.
        counts: numbers of pixels to divide by, instead of the batch's own (`count_pixels`); processes that share a
            batch give the mean of theirs, so that the mean of their losses is that of the batch.

    Returns:
        Scalar; 0 with a graph if all pixels are ignored.
    """
    each = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="none")
    counts = (count_pixels(labels) if counts is None else counts).to(each)
    background = labels == 0
    # `where`, since indexing synchronises with the device; ignored pixels are 0
    sums = torch.stack([torch.where(background, each, 0).sum(), torch.where(background, 0, each).sum()])
    if not balanced:
        return sums.sum() / counts.sum().clamp(min=1e-6)
    there = counts > 0
    means = torch.where(there, sums / torch.where(there, counts, 1), 0)
    return means.sum() / there.sum().clamp(min=1) + 0 * sums.sum()


def drop_large_losses(logits: Tensor, labels: Tensor, share: float) -> Tensor:
    r"""Return labels in which the pixels of the largest losses are ignored, class by class.

    .. math:: y'_i = 255 \quad \text{where} \quad -\log p_{i, y_i} > q_{1 - s}\big(\{-\log p_{j, y_j} : y_j = y_i\}\big)

    with the quantile q over the pixels of a class in the batch. Networks learn what is regular before they learn wrong
    labels by heart (Han et al., NeurIPS 2018), so pixels whose loss stays large are often mislabelled.

    Args:
        logits: [N,K+1,h,w].
        labels: [N,h,w] integers, 255 ignored.
        share: s, share of each class's pixels to ignore, in [0, 1).

    Returns:
        [N,h,w] of the same dtype.
    """
    with torch.no_grad():
        each = F.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORE, reduction="none")
        owner = labels.flatten().long()
        order = each.flatten().argsort(stable=True)
        by_class = order[owner[order].argsort(stable=True)]  # by class, then by loss
        sizes = torch.bincount(owner, minlength=IGNORE + 1)
        kept = sizes - (sizes * share).long()
        starts = sizes.cumsum(0) - sizes
        rank = torch.empty_like(by_class)
        rank[by_class] = torch.arange(len(rank), device=rank.device)
        return labels.masked_fill((rank - starts[owner] >= kept[owner]).view_as(labels), IGNORE)


def fuse_logits(logits: Sequence[Tensor]) -> Tensor:
    """Compute the maximum of the logits of several scales, [N,K+1,h,w], on the first grid (bilinear)."""
    first, *others = logits
    resized = [F.interpolate(o, first.shape[2:], mode="bilinear") for o in others]
    return torch.stack([first, *resized]).amax(0) if others else first


def multiscale_loss(
    logits: Sequence[Tensor], labels: Tensor, *, balanced: bool = False, counts: Sequence[Tensor] | None = None
) -> Tensor:
    r"""Compute the loss of the second DeepLab's code ("MSC"): the sum over all scales and their fusion.

    .. math:: L = \sum_s L_s + L_{\max_s}

    Args:
        logits: logits of the images at several scales, each [N,K+1,h,w]; they are fused on the first grid. A single
            one is not fused.
        labels: labels of the images, [N,H,W], resized to each grid (`shrink_labels`).
        balanced, counts: see `segmentation_loss`; counts of each scale, then of the fused logits.
    """
    maps = [*logits, fuse_logits(logits)] if len(logits) > 1 else list(logits)
    total = torch.zeros((), device=labels.device)
    for i, one in enumerate(maps):
        small = shrink_labels(labels, (one.shape[2], one.shape[3]))
        total = total + segmentation_loss(one, small, balanced=balanced, counts=None if counts is None else counts[i])
    return total
