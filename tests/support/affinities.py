"""Affinities and maps to walk on, and the walk by dense powers of the matrix."""

from __future__ import annotations

import numpy as np
import pytest
import simulated

from camplug.wsss.affinity import (
    SparseAffinity,
    make_half_disc,
    slice_ends,
    slice_path,
)

SIZES = [(6, 7), (1, 11), (11, 1), (1, 1), (3, 2)]


def random_affinity(size, radius=3, seed=0):
    """Values near 1, so that something is left of them at beta 10."""
    planes = np.random.default_rng(seed).random((len(make_half_disc(radius)), *size)) ** 0.2
    return SparseAffinity.from_pairs(planes, make_half_disc(radius))


def walled_affinity(size, seed=0):
    """1 - the strongest boundary on each path, from a plane of smooth random walls."""
    h, w = size
    y, x = np.mgrid[:h, :w]
    waves = np.random.default_rng(seed).uniform(-0.6, 0.6, (12, 3))
    plane = sum(np.sin(a * y + b * x + 9 * c) for a, b, c in waves)
    boundary = np.exp(-(plane**2) * 2)  # walls along its zeros
    planes = np.zeros((34, h, w))
    for one, offset in zip(planes, make_half_disc(5), strict=True):
        slice_ends(one, *offset)[0][:] = 1 - np.max(list(slice_path(boundary, *offset)), axis=0)
    return SparseAffinity.from_pairs(planes, make_half_disc(5))


def random_maps(size, number=3, seed=1):
    return np.random.default_rng(seed).random((number, *size))


def densely(maps, affinity, doublings=8, beta=10):
    """x T^(2^doublings) with T = A^beta over the sums of its columns, T squared again and again."""
    powered = affinity.matrix.toarray().astype(np.float64) ** beta
    t = powered / powered.sum(0)
    for _ in range(doublings):
        t = t @ t
    return (maps.reshape(len(maps), -1) @ t).reshape(maps.shape)


def where(backend, device):
    """Options of a walk on a device. scipy's runs beside it, on the CPU."""
    if backend == "torch" and device.type == simulated.NAME:
        pytest.skip("torch has no sparse matrices of a device without a backend in C++")
    return {"backend": backend, **({"device": device} if backend == "torch" else {})}
