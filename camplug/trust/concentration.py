"""Concentration of a map on few pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from camplug.explain.tensor_ops import safe_divide


def sparseness(maps: Tensor) -> Tensor:
    r"""Compute the Gini coefficient of the absolute values of each map, [N] in [0, 1]; higher is sparser.

    .. math:: G = \frac{\sum_{i=1}^{n} (2 i - n - 1)\, |m|_{(i)}}{n \sum_i |m|_{(i)}}

    with the values in ascending order. Chalasani et al., Concise explanations of neural networks using adversarial
    training, ICML 2020 (https://arxiv.org/abs/1810.06583). 0 for an empty map.

    Args:
        maps: maps [N,H,W].

    >>> sparseness(torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]))
    tensor([0.7500, 0.0000])
    """
    values = _sort(maps.flatten(1).abs())
    n = values.shape[1]
    weights = 2 * torch.arange(1, n + 1, dtype=values.dtype, device=values.device) - n - 1
    return safe_divide((weights * values).sum(1), n * values.sum(1))


def complexity(maps: Tensor) -> Tensor:
    r"""Compute the entropy of each map as a distribution over pixels, [N] in nats; lower is more concentrated.

    .. math:: H = -\sum_i p_i \ln p_i, \quad p_i = |m_i| / \sum_j |m_j|

    Bhatt et al., Evaluating and aggregating feature-based model explanations, IJCAI 2020
    (https://arxiv.org/abs/2005.00631). The entropy is at most ln(HW), that of a constant map; an empty map counts so.

    Args:
        maps: maps [N,H,W].

    >>> complexity(torch.tensor([[[0.0, 2.0], [2.0, 0.0]]]))
    tensor([0.6931])
    """
    values = maps.flatten(1).abs()
    total = values.sum(1, keepdim=True)
    p = torch.where(total > 0, safe_divide(values, total), 1 / values.shape[1])
    entropy: Tensor = -torch.special.xlogy(p, p).sum(1)
    return entropy


def _sort(values: Tensor) -> Tensor:
    """Sort rows in ascending order; on the CPU with NumPy, which is several times faster."""
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.sort(1).values
    return torch.from_numpy(np.sort(values.detach().numpy(), axis=1))
