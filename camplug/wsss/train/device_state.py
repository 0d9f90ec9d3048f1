"""Devices of models, cached constants on devices, and random generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from camplug.plug import find_first_weight


@lru_cache(maxsize=64)
def make_channel_tensor(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Make a cached tensor [C,1,1] of one value per channel on a device; do not change it in place.

    >>> make_channel_tensor((0.5, 0.25), torch.device("cpu")).shape
    torch.Size([2, 1, 1])
    """
    with torch.inference_mode(False):  # the first caller may be in inference mode, later ones not
        return torch.tensor(values).to(device)[:, None, None]


def find_device(model: nn.Module) -> torch.device:
    """Return the device of a model's first weight; the CPU for a model without weights."""
    weight = find_first_weight(model)
    return torch.device("cpu") if weight is None else weight.device


@contextmanager
def keep_generators(device: torch.device) -> Iterator[None]:
    """Restore the random generators of the CPU and the used device on exit."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def mix_seeds(*numbers: int) -> int:
    """Derive one seed from several numbers.

    >>> mix_seeds(1, 2) == mix_seeds(1, 2) != mix_seeds(2, 1)
    True
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
