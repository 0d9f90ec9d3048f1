"""Distributed training: rank, world size, and means over processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def get_rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    there = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if there else (0, 1)


@torch.no_grad()
def mean_over_processes(counts: Tensor) -> Tensor:
    """Average counts over all processes.

    A loss that is a sum divided by a count gets the gradient of the whole batch if each process divides its own sum by
    this mean, since a step uses the mean of the processes' gradients.

    Args:
        counts: counts of this process, of any shape.

    Returns:
        float64, of the same shape; the counts themselves with a single process.
    """
    mean, (_, world) = counts.double(), get_rank_and_world()
    if world > 1:
        dist.all_reduce(mean)
        mean /= world
    return mean
