"""The permutohedral lattice against one kept in a dictionary, corner by corner; numbers worked by hand; bad input."""

from __future__ import annotations

import warnings
from collections import defaultdict

import numpy as np
import pytest
import torch

from camplug.errors import InputError
from camplug.wsss.crf import Lattice
from camplug.wsss.crf.distinct import find_distinct


def elevated(point):
    """A point on the hyperplane: one orthogonal direction (1, .., 1, -i, 0, ..) for each feature."""
    d = len(point)
    directions = [np.array([1.0] * i + [-i] + [0.0] * (d - i)) for i in range(1, d + 1)]
    unit = sum(f * v / np.linalg.norm(v) for f, v in zip(point, directions, strict=True))
    return (d + 1) * np.sqrt(2 / 3) * unit


def simplex(y):
    """Corners around y and their weights.

    Cells m = floor(y / (d + 1) + u) grow by one coordinate after the other as u goes from 0 to 1; each of them is the
    corner (d + 1) m - sum(m), and its weight is how long it lasts.
    """
    size = len(y)
    cell = np.floor(y / size)
    until = 1 - (y / size - cell)
    corners, time = defaultdict(float), 0.0
    for coordinate in np.argsort(until):
        corners[tuple(size * cell - cell.sum())] += until[coordinate] - time
        cell[coordinate] += 1
        time = until[coordinate]
    corners[tuple(size * cell - cell.sum())] += 1 - time
    return corners


def slow_filter(features, values):
    """The filter with a dictionary from corners to values."""
    d = features.shape[1]
    simplices = [simplex(elevated(f)) for f in features]
    held = defaultdict(float)
    for corners, value in zip(simplices, values, strict=True):
        for corner, weight in corners.items():
            held[corner] = held[corner] + weight * value
    for direction in range(d + 1):
        step = np.ones(d + 1)
        step[direction] = -d
        held = {
            corner: value + sum(held.get(tuple(corner + sign * step), 0) for sign in (-1, 1)) / 2
            for corner, value in held.items()
        }
    return np.array([sum(w * held[c] for c, w in corners.items()) for corners in simplices]) / (1 + 2.0**-d)


def points(d, n=150, spread=2.0, seed=0):
    return (np.random.default_rng(seed).normal(size=(n, d)) * spread).astype(np.float32)


def columns(n, c, seed=1):
    return np.random.default_rng(seed).random((n, c)).astype(np.float32)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_the_reference_puts_each_point_among_its_corners(d):
    for point in points(d, 40):
        y = elevated(point)
        corners = simplex(y)
        assert len(corners) == d + 1
        assert all(w >= 0 for w in corners.values())
        np.testing.assert_allclose(sum(w * np.array(c) for c, w in corners.items()), y, atol=1e-9)
        for corner in corners:
            assert sum(corner) == 0
            assert len({x % (d + 1) for x in corner}) == 1


@pytest.mark.parametrize("spread", [0.3, 2.0, 30.0])
@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_equals_the_lattice_in_a_dictionary(d, spread):
    features, values = points(d, spread=spread), columns(150, 3)
    np.testing.assert_allclose(Lattice(features).filter(values), slow_filter(features, values), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_on_a_device(d, count, device):
    """The same corners and filter, normalised and weighted, too; what is filtered stays as it was."""
    features, values = points(d), columns(150, count)
    there, placed = torch.from_numpy(values).to(device), torch.from_numpy(features).float().to(device)
    for change in (lambda one: one, lambda one: one.normalize().multiply(3)):
        lattice, other = change(Lattice(features)), change(Lattice(placed))
        got = other.slice(other.spread(there))
        assert got.device.type == other.device.type == device.type
        for name in ("numbers", "ahead", "behind"):
            assert torch.equal(getattr(other, name).cpu(), getattr(lattice, name))
        np.testing.assert_allclose(got.cpu().numpy(), lattice.filter(values), rtol=1e-5, atol=1e-6)
    assert np.array_equal(there.cpu().numpy(), values)
    got = Lattice(placed)
    slow = slow_filter(features, values)
    np.testing.assert_allclose(got.slice(got.spread(there)).cpu().numpy(), slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_points_of_two_images_do_not_meet(d, device):
    features, values = points(d), columns(150, 2)
    images = torch.arange(150) % 3
    lattice = Lattice(torch.from_numpy(features).float().to(device), images.to(device))
    got = lattice.slice(lattice.spread(torch.from_numpy(values).to(device))).cpu().numpy()
    for i in range(3):
        np.testing.assert_allclose(got[i::3], slow_filter(features[i::3], values[i::3]), rtol=1e-4, atol=1e-5)


def test_equals_the_lattice_in_a_dictionary_on_an_image():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:9, :11].reshape(2, -1) + 0.01  # off the ties
    rgb = rng.integers(0, 256, (99, 3))
    for features in (np.stack([x / 3, y / 3], 1), np.column_stack([x / 50, y / 50, rgb / 13])):
        single = features.astype(np.float32)
        values = columns(99, 2)
        np.testing.assert_allclose(Lattice(single).filter(values), slow_filter(single, values), rtol=1e-4, atol=1e-5)


def test_a_single_point_by_hand():
    """d = 1: 1 at the corner; blurred, 1/2 goes to the other corner, and half of it comes back; times 1 / (1 + 1/2)."""
    lattice = Lattice(np.zeros((1, 1)))
    assert (lattice.points, lattice.corners) == (1, 2)
    assert lattice.filter(np.ones((1, 1), np.float32))[0, 0] == pytest.approx((1 + 1 / 4) / 1.5)


def test_close_to_the_gaussian():
    """Where points lie densely; the largest value, at distance 0, is 1 for both."""
    line = np.stack([np.linspace(-6, 6, 961), np.zeros(961)], 1)
    y, x = np.mgrid[-4:4.01:0.1, -6:6.01:0.1]
    plane = np.concatenate([line, np.stack([x.ravel(), y.ravel()], 1)])
    impulse = np.zeros((len(plane), 1), np.float32)
    impulse[480] = 1
    answer = Lattice(plane).filter(impulse)[:961, 0]
    exact = np.exp(-0.5 * line[:, 0] ** 2)
    assert np.abs(answer / answer.max() - exact).max() < 0.12
    assert np.abs(answer / answer.max() - exact).mean() < 0.025


def test_columns_do_not_know_of_each_other():
    lattice, values = Lattice(points(5)), columns(150, 9)
    for count in (1, 2, 3, 4, 9):
        np.testing.assert_allclose(lattice.filter(values[:, :count]), lattice.filter(values)[:, :count], rtol=1e-5)
        fortran = np.asfortranarray(values[:, :count])
        np.testing.assert_allclose(lattice.filter(fortran), lattice.filter(values)[:, :count], rtol=1e-5)
    assert lattice.filter(values[:, :0]).shape == (150, 0)


def test_linear_and_untouched_input():
    lattice, a, b = Lattice(points(2)), columns(150, 4, 1), columns(150, 4, 2)
    before = a.copy()
    np.testing.assert_allclose(
        lattice.filter(a + 3 * b), lattice.filter(a) + 3 * lattice.filter(b), rtol=1e-4, atol=1e-5
    )
    assert np.array_equal(a, before)


def test_far_apart_points_do_not_meet():
    lattice = Lattice(np.array([[0.0, 0.0], [100.0, 100.0]]))
    answer = lattice.filter(np.array([[1.0], [0.0]], np.float32))
    assert answer[0, 0] > 0.5
    assert answer[1, 0] == 0


def test_normalisation_by_hand():
    """Two points in one place: K is a constant matrix, and N K N averages."""
    lattice = Lattice(np.full((2, 5), 0.3)).normalize()
    np.testing.assert_allclose(lattice.filter(np.array([[1.0], [3.0]], np.float32)), [[2], [2]], rtol=1e-6)
    np.testing.assert_allclose(lattice.multiply(4).filter(np.array([[1.0], [3.0]], np.float32)), [[8], [8]], rtol=1e-6)


def test_normalisation_equals_its_formula():
    lattice = Lattice(points(3))
    matrix = lattice.filter(np.eye(150, dtype=np.float32)).astype(np.float64)
    n = np.diag(1 / np.sqrt(matrix.sum(1)))
    np.testing.assert_allclose(
        lattice.normalize().filter(np.eye(150, dtype=np.float32)), n @ matrix @ n, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("values", [10, 3_000, 2**40])
@pytest.mark.parametrize("n", [0, 1, 4_000, 70_000])
def test_distinct_values_as_numpy_finds_them(n, values):
    codes = np.random.default_rng(n).integers(0, values, (2, n))
    want, inverse = np.unique(codes, return_inverse=True)
    found, numbers = find_distinct(codes)
    assert np.array_equal(found, want)
    assert numbers.shape == codes.shape
    assert np.array_equal(numbers, inverse.reshape(codes.shape))


@pytest.mark.parametrize(
    "features,words",
    [
        (np.zeros(3), r"features are \[3\]; give \[N, d\]"),
        (np.zeros((0, 2)), r"features are \[0, 2\]"),
        (np.zeros((2, 0)), r"features are \[2, 0\]"),
        (np.array([[0.0, np.nan]]), "features hold nan or infinite values"),
        (
            np.array([[0.0], [1e30]]),
            "up to .* steps of the lattice from the origin, .* give larger standard deviations",
        ),
        (np.array([[0.0, 0.0], [1e300, -1e300]]), "beyond what float32 tells apart"),
        (np.array([[0.0] * 5, [30000.0] * 5]), "the points span .* steps of the lattice, too many to number"),
    ],
)
def test_bad_features_get_one_sentence(features, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=words):
            Lattice(features)


@pytest.mark.parametrize("shape", [(3,), (2, 1), (3, 1, 1)])
def test_bad_values_get_one_sentence(shape):
    with pytest.raises(InputError, match=r"values are \[.*\]; give \[3, C\], a row for each point"):
        Lattice(np.zeros((3, 2))).filter(np.zeros(shape, np.float32))
