"""Affinities of a grid's pairs as tensors on a device, for random walks without transfers."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor


class Table(NamedTuple):
    """Sparse rows of n positions with places for P offsets behind, the diagonal and P offsets ahead: [n,2P+1] each.

    Columns increase along a row.

    Attributes:
        values: affinities, float32; 0 off the grid.
        columns: positions, int64; 0 off the grid.
        there: True for places on the grid.
    """

    values: Tensor
    columns: Tensor
    there: Tensor

    @classmethod
    def from_planes(cls, planes: Tensor, ahead: list[tuple[int, int, int]]) -> Table:
        """Make a table from planes [P,h,w] of pairs; `ahead` holds (dy, dx, index of the plane), sorted."""
        (h, w), device = planes.shape[1:], planes.device
        dy, dx, plane = _list_places(tuple(ahead), device)
        y, x = torch.arange(h, device=device).view(-1, 1, 1), torch.arange(w, device=device).view(-1, 1)
        rows, columns = y + dy, x + dx
        there = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
        own, other = y * w + x, torch.where(there, rows * w + columns, 0)
        known = torch.cat([planes.float().flatten(), torch.ones(h * w, device=device)])  # last plane: the diagonal
        values = known[plane * (h * w) + torch.minimum(own, other)].masked_fill_(~there, 0)
        return cls(*(part.flatten(0, 1) for part in (values, other, there)))

    def to_matrix(self) -> csr_array:
        """Convert to a scipy matrix on the CPU."""
        values, columns, there = (part.cpu().numpy() for part in self)
        starts = np.zeros(len(there) + 1, np.int32 if there.size <= np.iinfo(np.int32).max else np.int64)
        np.cumsum(there.sum(1), out=starts[1:])
        matrix = csr_array((values[there], columns[there].astype(starts.dtype), starts), shape=(len(there),) * 2)
        matrix.has_canonical_format = True  # sorted and without duplicates
        return matrix

    def compute_transitions(self, beta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Compute P = D^-1 W with W = values^beta, in CSR form: row starts, columns, values; see `Walk`."""
        values = self.values.to(dtype, copy=True).pow_(beta)
        values.masked_fill_(values < torch.finfo(torch.float32).tiny, 0)
        values /= values.sum(1, keepdim=True)
        starts = F.pad(self.there.sum(1).cumsum(0), (1, 0))
        at = self.there.flatten().nonzero().flatten()
        return starts.int(), self.columns.flatten()[at].int(), values.flatten()[at]


@lru_cache(maxsize=16)
def _list_places(ahead: tuple[tuple[int, int, int], ...], device: torch.device) -> Tensor:
    """List (dy, dx, plane) of all places of a row, [3,2P+1]; cached, as copies to a GPU synchronise."""
    behind = [(-dy, -dx, p) for dy, dx, p in reversed(ahead)]
    with torch.inference_mode(False):
        return torch.tensor([*behind, (0, 0, len(ahead)), *ahead]).T.to(device)
