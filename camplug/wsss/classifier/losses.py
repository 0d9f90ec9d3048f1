"""Loss of multi-label classifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.errors import InputError


def classification_loss(logits: Tensor, present: Tensor, *, focal: float = 0.0) -> Tensor:
    r"""Compute the binary cross-entropy of sigmoids, averaged over classes and images.

    .. math:: L = -\frac1{NC} \sum_{n,c} \big[ y_{nc} \log \sigma(z_{nc})
              + \sigma(z_{nc})^\gamma (1 - y_{nc}) \log(1 - \sigma(z_{nc})) \big]

    gamma = 0 gives torch's `multilabel_soft_margin_loss`, gamma = 2 the focal loss of the FPR paper (Chen et al., ICCV
    2023, eq. 10), which gives hard absent classes more weight.

    Args:
        logits: z, [N,C].
        present: y, 1 where image n shows class c, else 0, [N,C].
        focal: gamma.

    Raises:
        InputError: the shapes do not fit together.

    >>> classification_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])).round(decimals=4)
    tensor(0.6931)
    >>> classification_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]), focal=2).round(decimals=4)
    tensor(0.4332)
    """
    if logits.shape != present.shape:
        raise InputError(f"logits {list(logits.shape)} and labels {list(present.shape)} do not fit; give [N,C] both.")
    present = present.to(logits)
    if not focal:
        return F.binary_cross_entropy_with_logits(logits, present)
    absent = torch.sigmoid(logits) ** focal * F.logsigmoid(-logits)
    return -(present * F.logsigmoid(logits) + (1 - present) * absent).mean()
