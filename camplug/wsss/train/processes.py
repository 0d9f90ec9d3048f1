"""The processes that train together, and means over a batch that they share."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> tuple[int, int]:
    """This process's rank and how many train together."""
    there = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if there else (0, 1)


@torch.no_grad()
def mean_over_processes(counts: Tensor) -> Tensor:
    """What each process counts in its part of a batch, averaged over the processes that train together.

    Where a loss is a sum over a count, each process divides its own sum by this: the mean of the processes' gradients,
    which is what a step follows, is then the gradient of the whole batch's loss, however the count is spread.

    Args:
        counts: of any shape.

    Returns:
        float64, of the same shape; the counts themselves in a training of one process.
    """
    mean, (_, world) = counts.double(), processes()
    if world > 1:
        dist.all_reduce(mean)
        mean /= world
    return mean
