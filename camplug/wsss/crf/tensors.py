"""Lattice filter and mean-field iteration with torch, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from camplug.errors import InputError
from camplug.plug import send_to
from camplug.wsss.crf.lattice import Floats, Lattice


class TensorLattice:
    """Filter of a `Lattice` on a device; equal up to rounding.

    Splat, blur and slice are weighted sums of rows by `embedding_bag`, without intermediate tensors and atomic
    additions: results are the same in every run.

    Args:
        lattice: lattice built with numpy.
        device: device of the tensors.
    """

    def __init__(self, lattice: Lattice, device: torch.device) -> None:
        slices, splats = lattice.slices, lattice.slices.T.tocsr()
        self._corners = _to_device(slices.indices.reshape(lattice.points, -1), device)
        self._weights = _to_device(slices.data, device).view(self._corners.shape) * lattice.scale
        self._pixels, self._starts = _to_device(splats.indices, device), _to_device(splats.indptr[:-1], device)
        self._shares = _to_device(splats.data, device)
        own = np.broadcast_to(np.arange(lattice.corners + 1), lattice.ahead.shape)
        lines = np.stack([own, lattice.ahead, lattice.behind], -1).astype(np.int32)
        self._lines = _to_device(lines, device)
        self._blur = torch.tensor([1, 0.5, 0.5], device=device).repeat(lattice.corners + 1, 1)

    def filter(self, values: Tensor) -> Tensor:
        """Filter values [N, C], float32."""
        return self.slice(self.spread(values))

    def spread(self, values: Tensor) -> Tensor:
        """Splat and blur values [N, C], float32: those of the corners [M + 1, C]."""
        spread = F.embedding_bag(self._pixels, values, self._starts, mode="sum", per_sample_weights=self._shares)
        for line in self._lines:  # each corner, the next and the previous one
            spread = F.embedding_bag(line, spread, mode="sum", per_sample_weights=self._blur)
        return spread

    def slice(self, spread: Tensor, points: slice = slice(None)) -> Tensor:
        """Return the values of points [N, C] from those of the corners."""
        return F.embedding_bag(self._corners[points], spread, mode="sum", per_sample_weights=self._weights[points])


class TensorField:
    """Mean-field inference on a device; only the unary and the result are transferred.

    Args:
        lattices: normalised kernels times their compatibilities.
        device: device; None: the CPU.

    Raises:
        InputError: the device does not exist.
    """

    def __init__(self, lattices: Sequence[Lattice], device: str | torch.device | None) -> None:
        try:
            self.device = torch.device(device or "cpu")
            torch.empty(0, device=self.device)
        except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"device={str(device)!r} cannot be used here ({reason}); 'cpu' always can.") from None
        self._lattices = [TensorLattice(lattice, self.device) for lattice in lattices]

    @torch.inference_mode()
    def run_mean_field(self, unary: Floats, iterations: int) -> Floats:
        """Compute Q [K, P] of a unary [K, P]; see `meanfield.run_mean_field`."""
        start = send_to(torch.from_numpy(unary), self.device).T.neg().contiguous()
        q = torch.softmax(start, 1)
        for _ in range(iterations):
            logits = start
            for lattice in self._lattices:
                logits = logits + lattice.filter(q)
            q = torch.softmax(logits, 1)
        marginals: Floats = q.T.contiguous().cpu().numpy()
        return marginals


def _to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
