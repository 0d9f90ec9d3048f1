"""Activation-aware loss, which uses saliency maps where they agree with the pseudo-labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.tensor_ops import widen
from camplug.wsss.data.dataset import IGNORE


class Refinement(NamedTuple):
    """Result of `activation_aware_loss`.

    Attributes:
        loss: second term of eq. 4 with its weights, averaged over images; a scalar.
        tau: agreement of labels and saliency of each image, in [0, 1]; [N].
        conflicts: share of the counted pixels of each image where only one of them is background; [N].
    """

    loss: Tensor
    tau: Tensor
    conflicts: Tensor


def activation_aware_loss(
    logits: Tensor,
    labels: Tensor,
    saliency: Tensor,
    *,
    alpha: float = 0.08,
    threshold: float = 0.5,
    clamped: bool = False,
) -> Refinement:
    r"""Compute the loss between background probability and complement of the saliency, weighted by their agreement.

    .. math:: L = L_{ce} + \alpha (e^\tau - 1) L_{sal}, \qquad
              L_{sal} = -\overline{(1 - s) \log p_0 + s \log(1 - p_0)} \qquad (4)

    Sun et al., "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation" (2021), eq.
    4. This is its second term with the background's softmax probability p_0. tau is the mean of the IoUs of background
    and foreground between two binary maps of an image, the labels and the saliency thresholded at `threshold`. If one
    of the unions is empty, tau is 1. e^tau - 1 is between 0 and 1.72 and has no gradient.

    The paper leaves the following open. Each image has its own tau. Ignored pixels, such as the padding of a crop,
    count neither for tau nor for L_sal. L_sal is the mean over the counted pixels of an image, the loss the mean over
    the images of the batch; an image without counted pixels contributes 0, with tau 0.

    Args:
        logits: [N,K+1,h,w], background first.
        labels: 0 for background, c + 1 for class c, 255 for ignored; [N,h,w].
        saliency: s, [N,h,w] in [0, 1].
        alpha: weight, at least 0.
        threshold: saliency below which a pixel is background, above 0 and at most 1.
        clamped: skip the check of the saliency's range, which synchronises with the device.

    Raises:
        InputError: the shapes do not fit together, saliency is outside [0, 1], or an option is out of range.

    >>> logits = torch.zeros(1, 2, 2, 2)
    >>> labels = torch.tensor([[[0, 0], [1, 255]]])
    >>> saliency = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    >>> loss, tau, conflicts = activation_aware_loss(logits, labels, saliency)  # either IoU is 1/2
    >>> loss, tau, conflicts  # 0.08 (e^0.5 - 1) log 2
    (tensor(0.0360), tensor([0.5000]), tensor([0.3333]))
    """
    _check(logits, labels, saliency, alpha, threshold)
    if not clamped and saliency.numel() and not bool(((saliency >= 0) & (saliency <= 1)).all()):
        raise InputError("the saliency is not in [0, 1] everywhere; divide 8-bit values by 255.")
    logits, saliency = widen(logits), widen(saliency.detach())
    counted = labels != IGNORE
    tau, conflicts = compute_agreement(labels == 0, saliency < threshold, counted)
    odds = logits[:, 0] - logits[:, 1:].logsumexp(1)  # log p_0 / (1 - p_0)
    entropy = F.binary_cross_entropy_with_logits(odds, (1 - saliency).to(odds), reduction="none")
    per_image = torch.where(counted, entropy, 0).sum((1, 2)) / counted.sum((1, 2)).clamp_min(1)
    return Refinement((alpha * torch.expm1(tau) * per_image).mean(), tau, conflicts)


def compute_agreement(one: Tensor, other: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the agreement of binary maps: mean IoU of true and false, and the share of pixels where they differ.

    Args:
        one: bool [N,h,w].
        other: bool [N,h,w].
        counted: mask of the pixels to compare, bool [N,h,w].

    Returns:
        float32 [N] each; both 0 for an image without counted pixels.

    >>> one, other = torch.tensor([[[True, True, True, False]]]), torch.tensor([[[True, True, False, False]]])
    >>> compute_agreement(one, other, torch.ones(1, 1, 4, dtype=torch.bool))  # (2/3 + 1/2) / 2, and 1 of 4
    (tensor([0.5833]), tensor([0.2500]))
    """

    def count(which: Tensor) -> Tensor:
        return (which & counted).sum((1, 2)).float()

    pixels, true, false, differ = count(counted), count(one & other), count(~(one | other)), count(one ^ other)
    # if one value does not occur, all pixels agree, and both IoUs are set to 1
    ious = [torch.where(both + differ > 0, both / (both + differ).clamp_min(1), 1) for both in (true, false)]
    found = (pixels > 0).float()
    return found * (ious[0] + ious[1]) / 2, differ / pixels.clamp_min(1)


def _check(logits: Tensor, labels: Tensor, saliency: Tensor, alpha: float, threshold: float) -> None:
    if logits.ndim != 4 or logits.shape[1] < 2:
        raise InputError(f"logits {list(logits.shape)}; give [N,K+1,h,w], of the background and at least one class.")
    grid = [len(logits), *logits.shape[2:]]
    if list(labels.shape) != grid or list(saliency.shape) != grid:
        raise InputError(
            f"labels {list(labels.shape)} and saliency {list(saliency.shape)} do not fit logits {list(logits.shape)}; "
            f"give {grid} both."
        )
    if not 0 <= alpha < float("inf"):
        raise InputError(f"alpha={alpha!r}; give a number of at least 0.")
    if not 0 < threshold <= 1:
        raise InputError(f"threshold={threshold!r} of the saliency; give a number above 0, at most 1.")
