"""The walk on arrays and tensors of any device: backends, memory, strides, and bad input."""

from __future__ import annotations

import itertools
import math
import tracemalloc
import warnings

import numpy as np
import pytest
import simulated
import torch
from affinities import SIZES, random_affinity, random_maps, walled_affinity, where
from operations import Operations

from camplug.errors import InputError
from camplug.wsss.affinity import (
    SparseAffinity,
    Walk,
    compute_chebyshev_terms,
    make_half_disc,
    propagate,
)
from camplug.wsss.affinity.table import Table

# ---- arrays and tensors


@pytest.mark.parametrize("steps,tolerance", [(256, None), (256, 1e-6), (33, 1e-3), (1, 0.0)])
@pytest.mark.parametrize("number", [1, 3, 20])
def test_backends_agree(steps, tolerance, number, device):
    """Up to what rounding makes of sums over a row of the matrix, once per product, in either order."""
    affinity, maps = walled_affinity((12, 15)), random_maps((12, 15), number)
    for dtype in (np.float64, np.float32):
        one, other = (
            propagate(maps.astype(dtype), affinity, steps, tolerance=tolerance, **where(backend, device))
            for backend in ("scipy", "torch")
        )
        assert one.dtype == other.dtype == dtype
        bound = 2 * steps * np.diff(affinity.matrix.indptr).max() * np.finfo(dtype).eps
        assert (abs(one - other) <= bound * one.max((1, 2), keepdims=True)).all()


@pytest.mark.parametrize("backend", ["scipy", "torch", None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_in_tensors_out(backend, dtype, device):
    """They stay on their device, wherever the walk is computed."""
    affinity = random_affinity((5, 6))
    maps = torch.from_numpy(random_maps((5, 6))).to(device, dtype)
    got = propagate(maps.clone().requires_grad_(), affinity, 40, **where(backend, device))
    assert got.device == maps.device
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert not got.requires_grad
    assert got.is_contiguous()
    want = propagate(maps.double().cpu().numpy(), affinity, 40)
    np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-10 if dtype == torch.float64 else 1e-4)


def on_device(affinity_planes, device):
    """The affinity of planes of radius 3 that lie on a device."""
    return SparseAffinity.from_pairs(torch.from_numpy(affinity_planes).to(device), make_half_disc(3))


@pytest.mark.parametrize("tolerance", [None, 1e-6])
@pytest.mark.parametrize("number", [0, 1, 3, 20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_affinities_of_a_device(tolerance, number, dtype, device):
    """From planes that lie there to maps that do: as on the CPU, whichever of the two is where."""
    planes = np.random.default_rng(0).random((12, 24, 32)) ** 0.2
    maps = torch.from_numpy(random_maps((24, 32), number)).to(dtype)
    want = propagate(maps, SparseAffinity.from_pairs(planes, make_half_disc(3)), tolerance=tolerance)
    close = {"rtol": 1e-6, "atol": 1e-8} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-6}
    there = on_device(planes, device)
    assert there.device.type == device.type
    for given in (maps.to(device), maps):
        got = propagate(given, there, tolerance=tolerance)
        assert (got.device, got.dtype) == (given.device, dtype)
        torch.testing.assert_close(got.cpu(), want, **close)
    array = propagate(maps.numpy(), there, tolerance=tolerance)
    assert isinstance(array, np.ndarray)
    np.testing.assert_allclose(array, want, **close)


@pytest.mark.parametrize("size", [*SIZES, (9, 7)])
@pytest.mark.parametrize("beta", [10, 0.5, 1e6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_table_of_a_device_is_the_matrix_of_a_walk(size, beta, dtype, device):
    """Rows, columns and transition values of P, without the sparse tensor that they become."""
    planes = (np.random.default_rng(3).random((12, *size)) ** 0.2).astype(np.float32)
    affinity = SparseAffinity.from_pairs(planes, make_half_disc(3))
    matrix, table = affinity.matrix, Table.from_planes(torch.from_numpy(planes).to(device), numbered(make_half_disc(3)))
    starts, columns, values = (part.cpu().numpy() for part in table.compute_transitions(beta, dtype))
    np.testing.assert_array_equal(starts, matrix.indptr)
    np.testing.assert_array_equal(columns, matrix.indices)
    powered = matrix.toarray().astype(np.float64) ** beta
    want = powered / powered.sum(1, keepdims=True)
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    np.testing.assert_allclose(values, want[rows, columns], rtol=1e-5, atol=1e-37)


def numbered(offsets):
    return sorted((*offset, p) for p, offset in enumerate(offsets))


def test_operations_of_a_step(device):
    """A product and a sum for each term, in the memory of the terms before."""
    affinity, options = walled_affinity((12, 15)), where("torch", device)
    walk, maps, counted = Walk(affinity, **options), torch.from_numpy(random_maps((12, 15))).to(device), []
    for steps in (64, 256):
        with Operations() as operations:
            walk(maps, steps)
        counted.append(operations.counts)
    terms = np.subtract(*([len(compute_chebyshev_terms(steps)[0]) for steps in (256, 64)]))
    more = counted[1] - counted[0]
    assert more["addmm"] == terms
    assert more.total() <= 1.5 * terms + 1  # every second coefficient is 0


def test_what_a_walk_on_a_device_waits_for(device):
    """The range of the affinities and the places of pairs on the grid; no matrix goes over and back."""
    planes = torch.from_numpy(np.random.default_rng(0).random((12, 24, 32))).to(device)
    with simulated.count_waits() as waits:
        affinity = SparseAffinity.from_pairs(planes, make_half_disc(3))
    assert waits.total() == (device.type == simulated.NAME)
    with simulated.count_waits() as waits:
        Table.from_planes(planes, numbered(make_half_disc(3))).compute_transitions(10, torch.float32)
    assert waits.total() == (device.type == simulated.NAME)
    assert affinity.device.type == device.type


@pytest.mark.parametrize("backend", ["scipy", "torch"])
@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_no_class_gives_no_map(backend, tolerance, device):
    affinity = random_affinity((5, 6))
    for empty in (np.zeros((0, 5, 6), np.float32), torch.zeros(0, 5, 6).to(device)):
        got = propagate(empty, affinity, tolerance=tolerance, **where(backend, device))
        assert (type(got), tuple(got.shape), got.dtype) == (type(empty), (0, 5, 6), empty.dtype)


@pytest.mark.parametrize("backend", ["scipy", "torch"])
def test_what_goes_in_is_left_alone(backend, device):
    affinity = random_affinity((5, 6))
    maps = random_maps((5, 6), 1)
    maps.setflags(write=False)
    before = maps.copy(), affinity.matrix.data.copy(), affinity.matrix.indices.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        walk = Walk(affinity, **where(backend, device))
        for tolerance, steps in itertools.product((None, 1e-6), (0, 1, 30)):
            first, second = (walk(maps, steps, tolerance) for _ in range(2))
            np.testing.assert_array_equal(first, second)
    for was, now in zip(before, (maps, affinity.matrix.data, affinity.matrix.indices), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize("turned", [np.s_[:, ::-1], np.s_[:, :, ::-1], np.s_[::-1]])
def test_any_strides(turned):
    affinity, maps = random_affinity((5, 6)), random_maps((5, 6))[turned]
    np.testing.assert_array_equal(propagate(maps, affinity, 9), propagate(maps.copy(), affinity, 9))


# ---- memory


def test_memory_is_that_of_the_sparse_matrix():
    """94x125 positions: a dense matrix in float32 takes 552 MB."""
    planes = np.random.default_rng(0).random((34, 94, 125), np.float32)
    maps = random_maps((94, 125)).astype(np.float32)
    tracemalloc.start()
    affinity = SparseAffinity.from_pairs(planes, make_half_disc(5))
    propagate(maps, affinity)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("backend", ["scipy", "torch"])
def test_a_grid_whose_dense_matrix_no_machine_holds(backend, device):
    size = (400, 600)  # 230 GB
    affinity = SparseAffinity.from_pairs(np.ones((2, *size), np.float32), [(0, 1), (1, 0)])
    maps = np.zeros((1, *size), np.float32)
    maps[0, 200, 300] = 1
    got = propagate(maps, affinity, 2, tolerance=None, **where(backend, device))[0, 198:203, 298:303]
    want = np.array([[0, 0, 1, 0, 0], [0, 2, 2, 2, 0], [1, 2, 5, 2, 1], [0, 2, 2, 2, 0], [0, 0, 1, 0, 0]]) / 25
    np.testing.assert_allclose(got, want, rtol=1e-5)


# ---- refusals

GOOD = np.zeros((1, 2, 2))

SQUARE = SparseAffinity.from_pairs(np.ones((4, 2, 2)), make_half_disc(2))


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: propagate(np.ones((1, 3, 4)), SQUARE), "maps are 3x4 and the affinity is 2x2; resize the maps to 2x2"),
        (lambda: propagate(torch.ones(1, 2, 3), SQUARE), "maps are 2x3 and the affinity is 2x2"),
        (lambda: propagate(np.ones((2, 2)), SQUARE), r"maps are float64 \[2, 2\]; give floats \[K, h, w\]"),
        (lambda: propagate(np.ones((1, 2, 2), np.uint8), SQUARE), "maps are uint8"),
        (lambda: propagate(torch.ones(1, 2, 2, dtype=torch.int64), SQUARE), "maps are int64"),
        (lambda: propagate(GOOD.astype(complex), SQUARE), "maps are complex128"),
        (lambda: propagate("maps", SQUARE), r"maps are <U4 \[\]"),
        (lambda: propagate(GOOD + np.nan, SQUARE), "maps hold nan or infinity"),
        (lambda: propagate(GOOD + np.inf, SQUARE, backend="torch"), "maps hold nan or infinity"),
        (lambda: propagate(torch.tensor(GOOD) + math.nan, SQUARE), "maps hold nan or infinity"),
        (lambda: propagate(GOOD, SQUARE.matrix), "affinity is of type csr_array; give a SparseAffinity"),
        (lambda: propagate(GOOD, SQUARE, beta=0), r"beta=0; give a number above 0"),
        (lambda: propagate(GOOD, SQUARE, beta=-1), "beta=-1"),
        (lambda: propagate(GOOD, SQUARE, beta=math.nan), "beta=nan"),
        (lambda: propagate(GOOD, SQUARE, beta=math.inf), "beta=inf"),
        (lambda: propagate(GOOD, SQUARE, beta="10"), "beta='10'"),
        (lambda: propagate(GOOD, SQUARE, steps=-1), "steps=-1; give 0 to 1000000"),
        (lambda: propagate(GOOD, SQUARE, steps=2_000_000), "steps=2000000"),
        (lambda: propagate(GOOD, SQUARE, steps=2.5), "steps=2.5; give a whole number"),
        (
            lambda: propagate(GOOD, SQUARE, tolerance=-1e-3),
            "tolerance=-0.001; give a number from 0 to below 1, or None",
        ),
        (lambda: propagate(GOOD, SQUARE, tolerance=1), "tolerance=1"),
        (lambda: propagate(GOOD, SQUARE, tolerance=math.nan), "tolerance=nan"),
        (lambda: propagate(GOOD, SQUARE, backend="jax"), "backend='jax'; give one of scipy, torch"),
        (lambda: propagate(GOOD, SQUARE, device="nowhere"), "the device 'nowhere' is not available here"),
    ],
)
def test_bad_use_gets_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
