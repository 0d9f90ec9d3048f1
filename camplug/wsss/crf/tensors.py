"""Mean-field iteration with torch, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camplug.plug import resolve_device
from camplug.wsss.crf.lattice import Lattice


@torch.inference_mode()
def run_mean_field_on_device(lattices: Sequence[Lattice], unary: Tensor, iterations: int) -> Tensor:
    """Compute Q [K, P] of a unary [K, P] on the device of the lattices; see `meanfield.run_mean_field`."""
    start = unary.T.neg().contiguous()
    q = torch.softmax(start, 1)
    for _ in range(iterations):
        logits = start
        for lattice in lattices:
            logits = logits + lattice.slice(lattice.spread(q))
        q = torch.softmax(logits, 1)
    return q.T.contiguous()


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return a CUDA device, and the CPU for any other, where operations of the lattice may be missing."""
    resolved = resolve_device(device)
    return resolved if resolved.type == "cuda" else torch.device("cpu")
