"""The loss of a multi-label classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.errors import InputError


def classification_loss(logits: Tensor, present: Tensor, *, focal: float = 0.0) -> Tensor:
    r"""Binary cross-entropy of every class's sigmoid, the mean over classes and images.

    .. math:: L = -\frac1{NC} \sum_{n,c} \big[ y_{nc} \log \sigma(z_{nc})
              + \sigma(z_{nc})^\gamma (1 - y_{nc}) \log(1 - \sigma(z_{nc})) \big]

    With gamma = 0 this is torch's `multilabel_soft_margin_loss`. A gamma of 2 is the focal loss that the FPR paper
    (Chen et al., ICCV 2023, eq. 10) compares with: it weighs hard absent classes more.

    Args:
        logits: z, [N,C].
        present: y, 1 where image n shows class c, else 0, [N,C].
        focal: gamma.

    Raises:
        InputError: shapes that do not fit together.

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
