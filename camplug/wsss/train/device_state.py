"""State of devices: cached constants and restored random generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def make_channel_tensor(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Make a cached tensor [C,1,1] of one value per channel on a device; do not change it in place.

    >>> make_channel_tensor((0.5, 0.25), torch.device("cpu")).shape
    torch.Size([2, 1, 1])
    """
    with torch.inference_mode(False):  # the first caller may be in inference mode, later ones not
        return torch.tensor(values).to(device)[:, None, None]


@contextmanager
def keep_generators(device: torch.device) -> Iterator[None]:
    """Restore the random generators of the CPU and the used device on exit."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
