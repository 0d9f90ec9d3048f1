"""The sparse walk against dense powers of the matrix, as the published code forms them."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from affinities import SIZES, densely, random_affinity, random_maps, walled_affinity, where

from camplug.wsss.affinity import (
    SparseAffinity,
    Walk,
    compute_chebyshev_terms,
    make_half_disc,
    propagate,
)

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
