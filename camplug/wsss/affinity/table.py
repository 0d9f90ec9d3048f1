"""The affinities of a grid's pairs on the device where they were made: a walk there needs nothing of the CPU."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor


class Table(NamedTuple):
    """A row for each of n positions, with one place for each offset ahead, behind, and its own: [n,2P+1] each.

    A row's columns rise; places off the grid are filled up.

    Attributes:
        values: float32, 0 off the grid.
        columns: int64, which position; 0 off the grid.
        there: whether this place is on the grid.
    """

    values: Tensor
    columns: Tensor
    there: Tensor

    @classmethod
    def from_planes(cls, planes: Tensor, ahead: list[tuple[int, int, int]]) -> Table:
        """Planes [P,h,w] of pairs; `ahead` are (dy, dx, number of the plane), sorted."""
        (h, w), device = planes.shape[1:], planes.device
        dy, dx, plane = _list_places(tuple(ahead), device)
        y, x = torch.arange(h, device=device).view(-1, 1, 1), torch.arange(w, device=device).view(-1, 1)
        rows, columns = y + dy, x + dx
        there = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
        own, other = y * w + x, torch.where(there, rows * w + columns, 0)
        known = torch.cat([planes.float().flatten(), torch.ones(h * w, device=device)])  # the last plane: each itself
        values = known[plane * (h * w) + torch.minimum(own, other)].masked_fill_(~there, 0)
        return cls(*(part.flatten(0, 1) for part in (values, other, there)))

    def to_matrix(self) -> csr_array:
        """As scipy holds it, on the CPU."""
        values, columns, there = (part.cpu().numpy() for part in self)
        starts = np.zeros(len(there) + 1, np.int32 if there.size <= np.iinfo(np.int32).max else np.int64)
        np.cumsum(there.sum(1), out=starts[1:])
        matrix = csr_array((values[there], columns[there].astype(starts.dtype), starts), shape=(len(there),) * 2)
        matrix.has_canonical_format = True  # sorted and without duplicates
        return matrix

    def compute_transitions(self, beta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """P = D^-1 W, W being the values to the power of beta: where rows start, columns, values; see `Walk`."""
        values = self.values.to(dtype, copy=True).pow_(beta)
        values.masked_fill_(values < torch.finfo(torch.float32).tiny, 0)
        values /= values.sum(1, keepdim=True)
        starts = F.pad(self.there.sum(1).cumsum(0), (1, 0))
        at = self.there.flatten().nonzero().flatten()
        return starts.int(), self.columns.flatten()[at].int(), values.flatten()[at]


@lru_cache(maxsize=16)
def _list_places(ahead: tuple[tuple[int, int, int], ...], device: torch.device) -> Tensor:
    """(dy, dx, plane) of all places of a row, [3,2P+1]; kept, as a copy to a GPU waits for the work before it."""
    behind = [(-dy, -dx, p) for dy, dx, p in reversed(ahead)]
    with torch.inference_mode(False):
        return torch.tensor([*behind, (0, 0, len(ahead)), *ahead]).T.to(device)
