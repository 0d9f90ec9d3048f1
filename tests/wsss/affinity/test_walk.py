"""The sparse walk against dense powers of the matrix, as the published code forms them."""

from __future__ import annotations

import itertools
import math
import tracemalloc
import warnings
from fractions import Fraction

import numpy as np
import pytest
import simulated
import torch
from operations import Operations

from camplug.errors import InputError
from camplug.wsss.affinity import (
    SparseAffinity,
    Walk,
    compute_chebyshev_terms,
    make_half_disc,
    propagate,
    slice_ends,
    slice_path,
)
from camplug.wsss.affinity.table import Table

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


# ---- by hand


def test_two_positions_by_hand():
    """W = [[1, 1/4], [1/4, 1]], P = [[.8, .2], [.2, .8]], P^2 = [[.68, .32], [.32, .68]]."""
    pair = SparseAffinity([[1, 0.5], [0.5, 1]], (1, 2))
    for tolerance in (None, 0.0, 1e-9):
        got = propagate(np.array([[[1.0, 0.0]], [[0.0, 2.0]]]), pair, 2, beta=2, tolerance=tolerance)
        np.testing.assert_allclose(got, [[[0.68, 0.32]], [[0.64, 1.36]]], rtol=1e-12)


def test_three_positions_by_hand():
    """P = [[2/3, 1/3, 0], [2/7, 4/7, 1/7], [0, 1/5, 4/5]]."""
    line = SparseAffinity([[1, 0.5, 0], [0.5, 1, 0.25], [0, 0.25, 1]], (3, 1))
    x = np.array([1.0, 0, 0]).reshape(1, 3, 1)
    for tolerance in (None, 0.0):
        one, two = (propagate(x, line, steps, beta=1, tolerance=tolerance).ravel() for steps in (1, 2))
        np.testing.assert_allclose(one, [2 / 3, 2 / 7, 0], rtol=1e-12)
        np.testing.assert_allclose(two, [34 / 63, 52 / 147, 2 / 35], rtol=1e-12)


def test_in_the_long_run_a_map_is_its_mean_weighted_by_the_row_sums():
    line = SparseAffinity([[1, 0.5, 0], [0.5, 1, 0.25], [0, 0.25, 1]], (3, 1))
    got = propagate(np.array([1.0, 0, 0]).reshape(1, 3, 1), line, 4096, beta=1, tolerance=1e-12)
    np.testing.assert_allclose(got.ravel(), 1.5 / 4.5, rtol=1e-9)


# ---- against the dense form


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("doublings,beta", [(0, 10), (3, 8), (8, 10), (6, 0.5)])
@pytest.mark.parametrize("backend", ["scipy", "torch"])
def test_all_products_equal_the_dense_power(size, doublings, beta, backend, device):
    affinity, maps = random_affinity(size), random_maps(size)
    want = densely(maps, affinity, doublings, beta)
    got = propagate(maps, affinity, 2**doublings, beta, tolerance=None, **where(backend, device))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("backend", ["scipy", "torch"])
def test_the_default_equals_the_dense_power(backend, device):
    affinity, maps = walled_affinity((24, 32)), random_maps((24, 32))
    want = densely(maps, affinity)
    np.testing.assert_allclose(propagate(maps, affinity, **where(backend, device)), want, atol=2e-6)
    single = propagate(maps.astype(np.float32), affinity, **where(backend, device))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, want, atol=2e-4)


def test_labels_are_those_of_all_products():
    size = (48, 64)
    y, x = np.mgrid[: size[0], : size[1]] / 8
    affinity = walled_affinity(size)
    maps = np.stack([np.exp(-((y - a) ** 2) - (x - b) ** 2) for a, b in ((2, 2), (4, 6), (1, 7))])

    def labels(walked):
        return np.concatenate([np.full((1, *size), 0.25), walked / walked.max()]).argmax(0)

    want = labels(propagate(maps, affinity, tolerance=None))
    assert len(np.unique(want)) == 4
    np.testing.assert_array_equal(labels(propagate(maps.astype(np.float32), affinity)), want)


# ---- the series


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 8, 63, 64, 255, 256])
def test_coefficients_are_the_binomials(steps):
    want = [Fraction(0)] * (steps + 1)
    for k in range(steps % 2, steps + 1, 2):
        want[k] = Fraction(2 * math.comb(steps, (steps - k) // 2), 2**steps) / (2 if k == 0 else 1)
    coefficients, bound = compute_chebyshev_terms(steps, None)
    assert sum(want) == 1
    assert bound == 0
    np.testing.assert_allclose(coefficients, [float(c) for c in want], rtol=1e-12)
    t = np.linspace(-1, 1, 41)
    np.testing.assert_allclose(np.polynomial.chebyshev.chebval(t, coefficients), t**steps, atol=1e-13)
    for tolerance in (0.5, 0.1, 1e-3, 1e-6, 1e-12, 0):
        cut, bound = compute_chebyshev_terms(steps, tolerance)
        left = want[len(cut) :]
        np.testing.assert_array_equal(cut, coefficients[: len(cut)])
        assert bound == pytest.approx(float(sum(left)), rel=1e-10)
        assert bound <= tolerance
        if len(cut) > 1 + steps % 2:
            assert float(sum(left)) + cut[-1] > tolerance, "one product fewer would have done"


@pytest.mark.parametrize("steps", [10_000, 99_999, 100_000])
def test_coefficients_of_many_steps(steps):
    """They are the distribution of |sum of `steps` coin flips|: its total is 1, its second moment is `steps`."""
    coefficients, _ = compute_chebyshev_terms(steps, None)
    k = np.arange(steps + 1.0)
    assert len(coefficients) == steps + 1
    assert coefficients.sum() == pytest.approx(1, rel=1e-12)
    assert (coefficients * k**2).sum() == pytest.approx(steps, rel=1e-10)
    assert not coefficients[1 - steps % 2 :: 2].any()
    cut, bound = compute_chebyshev_terms(steps, 1e-6)
    assert 0 < bound <= 1e-6
    assert len(cut) < math.sqrt(2 * steps * math.log(2e6)) + 2


def test_the_number_of_products():
    assert [len(compute_chebyshev_terms(256, t)[0]) - 1 for t in (1e-3, 1e-4, 1e-6, None)] == [52, 62, 78, 256]


@pytest.mark.parametrize("steps", [1, 2, 7, 64, 256, 1001])
@pytest.mark.parametrize("tolerance", [0.3, 1e-2, 1e-4, 1e-8, 0])
def test_the_error_is_within_its_bound(steps, tolerance):
    affinity = random_affinity((9, 10), seed=steps)
    weights = affinity.matrix.toarray().astype(np.float64) ** 3
    maps = np.concatenate([random_maps((9, 10)) - 0.5, np.ones((1, 9, 10)), np.eye(90)[:1].reshape(1, 9, 10)])
    _, bound = compute_chebyshev_terms(steps, tolerance)
    all_products = propagate(maps, affinity, steps, beta=3, tolerance=None)
    error = propagate(maps, affinity, steps, beta=3, tolerance=tolerance) - all_products

    def norm(x):
        return np.sqrt((weights.sum(1) * x.reshape(len(x), -1) ** 2).sum(1))

    assert (norm(error) <= (bound + 1e-12) * norm(maps)).all()
    assert norm(error)[3] == pytest.approx(bound * norm(maps)[3], rel=1e-6, abs=1e-11), "constants meet the bound"


# ---- what a walk is


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 256])
def test_constants_stay(steps):
    affinity = random_affinity((5, 6))
    maps = np.full((2, 5, 6), 0.7)
    np.testing.assert_allclose(propagate(maps, affinity, steps, tolerance=None), maps, rtol=1e-12)
    _, bound = compute_chebyshev_terms(steps)
    np.testing.assert_allclose(propagate(maps, affinity, steps), maps * (1 - bound), rtol=1e-12)


@pytest.mark.parametrize("backend", ["scipy", "torch"])
def test_no_step_changes_nothing(backend, device):
    maps = random_maps((5, 6))
    for tolerance in (None, 1e-6):
        got = propagate(maps, random_affinity((5, 6)), 0, tolerance=tolerance, **where(backend, device))
        np.testing.assert_array_equal(got, maps)
        assert not np.shares_memory(got, maps)


def test_values_stay_between_the_extremes():
    maps = random_maps((6, 6))
    got = propagate(maps, random_affinity((6, 6)), 17, tolerance=None)
    assert (got.min((1, 2)) >= maps.min((1, 2))).all()
    assert (got.max((1, 2)) <= maps.max((1, 2))).all()


@pytest.mark.parametrize("backend", ["scipy", "torch"])
def test_maps_are_walked_independently_and_linearly(backend, device):
    affinity = random_affinity((5, 6))
    maps = random_maps((5, 6), 7) - 0.5
    walk = Walk(affinity, double=True, **where(backend, device))
    got = walk(maps, 50)
    for k in range(7):
        np.testing.assert_allclose(walk(maps[k : k + 1], 50)[0], got[k], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(walk(2 * maps[:3] - maps[3:6], 50), 2 * got[:3] - got[3:6], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("tolerance", [None, 0.0, 1e-3])
def test_steps_add_up(tolerance):
    affinity, maps = random_affinity((4, 5)), random_maps((4, 5))
    twice = propagate(propagate(maps, affinity, 9, tolerance=tolerance), affinity, 12, tolerance=tolerance)
    np.testing.assert_allclose(twice, propagate(maps, affinity, 21, tolerance=tolerance), atol=3 * (tolerance or 1e-12))


@pytest.mark.parametrize("backend", ["scipy", "torch"])
def test_positions_alone_stay_as_they_are(backend, device):
    planes = np.ones((4, 3, 4))
    planes[:, 1:, :] = 0  # nothing reaches the last row, ...
    planes[1:, 0, :] = 0  # ... and the first one is a line
    affinity = SparseAffinity.from_pairs(planes, make_half_disc(2))
    maps = random_maps((3, 4))
    got = propagate(maps, affinity, 256, tolerance=1e-9, **where(backend, device))
    np.testing.assert_allclose(got[:, 1:], maps[:, 1:], rtol=2e-9)
    np.testing.assert_allclose(got[:, 0], (maps[:, 0] @ [2, 3, 3, 2] / 10)[:, None].repeat(4, 1), rtol=1e-6)
    diagonal = SparseAffinity.from_pairs(np.zeros((4, 3, 4)), make_half_disc(2))
    np.testing.assert_array_equal(propagate(maps, diagonal, 256, tolerance=None, **where(backend, device)), maps)


def test_a_high_beta_leaves_numbers():
    for beta in (1e-3, 200, 1e6):
        got = propagate(random_maps((5, 6)), random_affinity((5, 6)), 256, beta)
        assert np.isfinite(got).all()


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
        (lambda: propagate(GOOD, SQUARE, device="nowhere"), "torch cannot hold a sparse matrix on device 'nowhere'"),
    ],
)
def test_bad_use_gets_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
