"""The sparse matrix against one that is filled pair by pair."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import scipy.sparse
import torch

from camplug.errors import InputError
from camplug.wsss.affinity import SparseAffinity, make_half_disc

SIZES = [(5, 7), (1, 6), (6, 1), (1, 1), (2, 9), (9, 3)]


def random_planes(size, radius, seed=0):
    return np.random.default_rng(seed).random((len(make_half_disc(radius)), *size), np.float32)


def pair_by_pair(planes, offsets):
    """The dense matrix, and which of it is a pair."""
    _, h, w = planes.shape
    matrix, pairs = np.eye(h * w, dtype=np.float32), np.eye(h * w, dtype=bool)
    for p, (dy, dx) in enumerate(offsets):
        for y, x in itertools.product(range(h), range(w)):
            if 0 <= y + dy < h and 0 <= x + dx < w:
                i, j = y * w + x, (y + dy) * w + x + dx
                matrix[i, j] = matrix[j, i] = planes[p, y, x]
                pairs[i, j] = pairs[j, i] = True
    return matrix, pairs


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [2, 3, 5])
def test_pairs_come_to_their_places(size, radius):
    planes = random_planes(size, radius)
    affinity = SparseAffinity.from_pairs(planes, make_half_disc(radius), size)
    want, pairs = pair_by_pair(planes, make_half_disc(radius))
    np.testing.assert_array_equal(affinity.matrix.toarray(), want)
    assert affinity.matrix.nnz == pairs.sum()
    assert affinity.size == size
    assert affinity.matrix.dtype == np.float32
    assert affinity.matrix.indices.dtype == affinity.matrix.indptr.dtype == np.int32


@pytest.mark.parametrize("size", SIZES)
def test_columns_are_sorted_as_the_flags_say(size):
    matrix = SparseAffinity.from_pairs(random_planes(size, 5), make_half_disc(5)).matrix
    fresh = scipy.sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    assert matrix.has_sorted_indices
    assert matrix.has_canonical_format
    assert fresh.has_sorted_indices
    assert fresh.has_canonical_format
    fresh.check_format(full_check=True)


def test_offsets_may_come_in_any_order():
    planes, offsets = random_planes((4, 5), 3), list(make_half_disc(3))
    order = np.random.default_rng(1).permutation(len(offsets))
    mixed = SparseAffinity.from_pairs(planes[order], [offsets[i] for i in order])
    want = SparseAffinity.from_pairs(planes, offsets)
    np.testing.assert_array_equal(mixed.matrix.toarray(), want.matrix.toarray())


def test_values_off_the_grid_are_not_looked_at():
    planes = random_planes((3, 4), 3)
    want = SparseAffinity.from_pairs(planes, make_half_disc(3)).matrix.toarray()
    for plane, (dy, dx) in zip(planes, make_half_disc(3), strict=True):
        off = np.ones((3, 4), bool)
        off[: max(3 - dy, 0), max(-dx, 0) : max(4 - max(dx, 0), 0)] = False
        plane[off] = np.nan
    assert np.isnan(planes).any()
    np.testing.assert_array_equal(SparseAffinity.from_pairs(planes, make_half_disc(3)).matrix.toarray(), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_planes_may_be_tensors(dtype, device):
    planes = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0)).to(device, dtype).requires_grad_()
    affinity = SparseAffinity.from_pairs(planes, make_half_disc(2))
    want, _ = pair_by_pair(planes.detach().float().cpu().numpy(), make_half_disc(2))
    np.testing.assert_array_equal(affinity.matrix.toarray(), want)
    assert affinity.device.type == device.type


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [2, 3, 5])
def test_planes_of_a_device_make_the_same_matrix(size, radius, device):
    """In any order, with anything off the grid."""
    planes, offsets = random_planes(size, radius), make_half_disc(radius)
    want = SparseAffinity.from_pairs(planes, offsets).matrix
    order = np.random.default_rng(1).permutation(len(offsets))
    for dy, dx in offsets:
        off = np.ones(size, bool)
        off[: max(size[0] - dy, 0), max(-dx, 0) : max(size[1] - max(dx, 0), 0)] = False
        planes[offsets.index((dy, dx))][off] = np.nan
    there = torch.from_numpy(planes[order]).to(device)
    affinity = SparseAffinity.from_pairs(there, [offsets[i] for i in order], size)
    for name in ("data", "indices", "indptr"):
        got, expected = getattr(affinity.matrix, name), getattr(want, name)
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype
    assert affinity.matrix is affinity.matrix
    assert (affinity.size, repr(affinity)) == (size, f"SparseAffinity({size[0]}x{size[1]}, {want.nnz} values)")
    matrix = affinity.matrix
    assert scipy.sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), matrix.shape).has_canonical_format


def test_no_pairs_on_a_device_leave_the_diagonal(device):
    affinity = SparseAffinity.from_pairs(torch.zeros(0, 2, 3).to(device), [])
    np.testing.assert_array_equal(affinity.matrix.toarray(), np.eye(6))


def test_rounding_on_a_device_is_moved_into_the_range(device):
    affinity = SparseAffinity.from_pairs(torch.tensor([[[1 + 1e-7, -1e-9, 0]]]).to(device), [(0, 1)])
    assert affinity.matrix.data.min() == 0
    assert affinity.matrix.data.max() == 1


@pytest.mark.parametrize(
    "value,words",
    [(math.nan, "hold nan"), (-0.5, r"go from -0.5 to 1; give numbers in \[0, 1\]"), (math.inf, "go from 0 to inf")],
)
def test_bad_values_on_a_device_get_the_same_sentence(value, words, device):
    for planes in (torch.full((4, 2, 2), value).to(device), np.full((4, 2, 2), value)):
        with pytest.raises(InputError, match=f"the affinities {words}"):
            SparseAffinity.from_pairs(planes, make_half_disc(2))
    with pytest.raises(InputError, match=r"planes are \[2, 2\] for 4 offsets"):
        SparseAffinity.from_pairs(torch.ones(2, 2).to(device), make_half_disc(2))


def test_no_pairs_leave_the_diagonal():
    affinity = SparseAffinity.from_pairs(np.zeros((0, 2, 3)), [])
    np.testing.assert_array_equal(affinity.matrix.toarray(), np.eye(6))


def test_making_it_takes_little_more_than_it_holds():
    planes = random_planes((94, 125), 5)
    tracemalloc.start()
    affinity = SparseAffinity.from_pairs(planes, make_half_disc(5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    matrix = affinity.matrix
    held = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    assert held == 8 * matrix.nnz + 4 * (94 * 125 + 1)
    assert held < 6.5e6
    assert peak < held + 1e6


def test_rounding_is_moved_into_the_range():
    affinity = SparseAffinity.from_pairs([[[1 + 1e-7, -1e-9, 0]]], [(0, 1)])
    assert affinity.matrix.data.min() == 0
    assert affinity.matrix.data.max() == 1


DENSE = np.array([[1, 0.5, 0], [0.5, 1, 0.25], [0, 0.25, 1]])


@pytest.mark.parametrize(
    "given",
    [
        DENSE,
        DENSE.tolist(),
        torch.from_numpy(DENSE),
        scipy.sparse.csr_array(DENSE),
        scipy.sparse.coo_matrix(DENSE),
        scipy.sparse.csc_array(DENSE.astype(np.float32)),
        np.add(DENSE, [[0, 4e-8, 0], [0, 1e-8, 0], [0, 0, -1e-8]]),
    ],
    ids=["array", "list", "tensor", "csr", "coo", "csc", "rounded"],
)
def test_a_matrix_is_taken(given):
    affinity = SparseAffinity(given, (3, 1))
    matrix = affinity.matrix
    np.testing.assert_array_equal(matrix.toarray(), DENSE.astype(np.float32))
    assert (matrix.format, matrix.dtype, affinity.size) == ("csr", np.float32, (3, 1))
    assert repr(affinity) == "SparseAffinity(3x1, 7 values)"


def test_a_matrix_is_copied_and_made_exactly_symmetric():
    given = scipy.sparse.csr_array(np.array([[1, 0.5], [0.5 + 5e-7, 1]], np.float32))
    affinity = SparseAffinity(given, (1, 2))
    assert affinity.matrix[0, 1] == affinity.matrix[1, 0]
    given.data[:] = 0
    assert affinity.matrix[0, 0] == 1


def edited(i, j, value):
    matrix = DENSE.copy()
    matrix[i, j] = value
    return matrix


@pytest.mark.parametrize(
    "matrix,size,words",
    [
        (DENSE, (2, 2), r"\[3, 3\] and the grid 2x2; give \[4, 4\]"),
        (DENSE[:2], (1, 3), r"\[2, 3\] and the grid 1x3"),
        (edited(0, 1, 0.4), (1, 3), r"not symmetric \(two values .* differ by 0.1\)"),
        (edited(1, 1, 0.5), (1, 3), "position 1 with itself is 0.5"),
        (edited(2, 2, 0), (1, 3), "position 2 with itself is 0"),
        (edited(0, 0, np.nan), (1, 3), "affinities hold nan"),
        (edited(0, 0, 2), (1, 3), "affinities go from 0 to 2"),
        (edited(0, 0, -1), (1, 3), "affinities go from -1 to 1"),
        (DENSE.astype(complex), (1, 3), "of type complex128"),
        ("no matrix", (1, 3), "of type <U9"),
        ([[1, 2], [1]], (1, 2), "cannot be read as an array"),
        (DENSE, 3, "size=3; give the height and the width"),
        (DENSE, (1, 3, 1), r"size=\(1, 3, 1\)"),
        (DENSE, (1.0, 3), r"size=\(1.0, 3\)"),
        (DENSE, (0, 3), "the grid is 0x3; give at least one position"),
    ],
)
def test_bad_matrices_get_one_sentence(matrix, size, words):
    with pytest.raises(InputError, match=words):
        SparseAffinity(matrix, size)


@pytest.mark.parametrize(
    "planes,offsets,size,words",
    [
        (np.ones((3, 2, 2)), make_half_disc(2), None, r"planes are \[3, 2, 2\] for 4 offsets"),
        (np.ones((2, 2)), make_half_disc(2), None, r"planes are \[2, 2\] for 4 offsets"),
        (np.ones((4, 2, 3)), make_half_disc(2), (3, 2), "planes are 2x3 and size is 3x2"),
        (np.ones((4, 0, 3)), make_half_disc(2), None, "the grid is 0x3"),
        (np.ones((2, 2, 2)), [(0, 1), (0, -1)], None, r"offset \(0, -1\) does not point ahead"),
        (np.ones((1, 2, 2)), [(0, 0)], None, r"offset \(0, 0\) does not point ahead"),
        (np.ones((2, 2, 2)), [(1, 1), (1, 1)], None, r"offset \(1, 1\) comes twice"),
        (np.full((4, 2, 2), np.nan), make_half_disc(2), None, "affinities hold nan"),
        (np.full((4, 2, 2), -0.5), make_half_disc(2), None, "affinities go from -0.5 to 1"),
        (np.full((4, 2, 2), np.inf), make_half_disc(2), None, "affinities go from 0 to inf"),
    ],
)
def test_bad_pairs_get_one_sentence(planes, offsets, size, words):
    with pytest.raises(InputError, match=words):
        SparseAffinity.from_pairs(planes, offsets, size)
