"""What keeps a GPU busy: copies that the host does not wait for, and constants that are made once per device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, without waiting for what the device has still to do.

    It goes through pinned memory, since a plain copy of what is not pinned waits for the work before it.

    Args:
        tensor: on the CPU.
        device: where it goes.

    Returns:
        The tensor itself where it is there already.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


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
