"""Devices of models, and random generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from camplug.plug import find_first_weight


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
