"""Constants that are made once per device, and generators of random numbers that are put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers per channel as [C,1,1] on a device, made once; not to be changed.

    >>> per_channel((0.5, 0.25), torch.device("cpu")).shape
    torch.Size([2, 1, 1])
    """
    with torch.inference_mode(False):  # whoever asks first may be in it, and others not
        return torch.tensor(values).to(device)[:, None, None]


@contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """Leave torch's generators of random numbers as they were: the CPU's, and of GPUs the one that is used."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
