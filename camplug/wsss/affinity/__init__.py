"""Affinities between positions of a grid, their loss, and the random walk that propagates maps.

>>> import numpy as np
>>> planes = np.ones((1, 1, 4))  # one row of positions; affinity of each and the next:
>>> planes[0, 0, 1] = 0.1  # an edge in the middle
>>> affinity = SparseAffinity.from_pairs(planes, offsets=[(0, 1)])
>>> propagate(np.array([[[1.0, 0.0, 0.0, 0.0]]]), affinity, steps=256, beta=10).round(3)
array([[[0.5, 0.5, 0. , 0. ]]])
"""

from camplug.wsss.affinity.colour import compute_attention_affinity, compute_colour_affinity
from camplug.wsss.affinity.losses import Pairs, affinity_loss, find_pairs
from camplug.wsss.affinity.pairs import Offset, make_half_disc, make_path, slice_ends, slice_path
from camplug.wsss.affinity.sparse import SparseAffinity
from camplug.wsss.affinity.walk import Walk, compute_chebyshev_terms, propagate

__all__ = [
    "Offset",
    "Pairs",
    "SparseAffinity",
    "Walk",
    "affinity_loss",
    "slice_path",
    "compute_attention_affinity",
    "compute_chebyshev_terms",
    "compute_colour_affinity",
    "slice_ends",
    "make_half_disc",
    "find_pairs",
    "make_path",
    "propagate",
]
