"""Affinities without training against their formulas, pair by pair."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.affinity import compute_attention_affinity, compute_colour_affinity, make_half_disc, propagate


def photo(h=12, w=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(np.uint8)


# ---- colour


def test_two_colours_by_hand():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = (3, 4, 12)  # 13 apart
    matrix = compute_colour_affinity(image, stride=4, radius=2, sigma=13).matrix.toarray()
    np.testing.assert_allclose(matrix, [[1, np.exp(-0.5)], [np.exp(-0.5), 1]], rtol=1e-6)


@pytest.mark.parametrize("radius", [2, 3, 5])
def test_colour_pair_by_pair(radius):
    image = photo()
    affinity = compute_colour_affinity(image, stride=4, radius=radius, sigma=50)
    cells = image.reshape(3, 4, 5, 4, 3).mean((1, 3)).reshape(15, 3)
    want = np.zeros((15, 15))
    for i, j in itertools.product(range(15), range(15)):
        if np.hypot(i // 5 - j // 5, i % 5 - j % 5) < radius:
            want[i, j] = np.exp(-((cells[i] - cells[j]) ** 2).sum() / 5000)
    np.testing.assert_allclose(affinity.matrix.toarray(), want, atol=0.02)  # the grid holds 8-bit colours
    np.testing.assert_array_equal(affinity.matrix.toarray() > 0, want > 0)


@pytest.mark.parametrize(
    "options,size",
    [
        ({}, (3, 5)),
        ({"stride": 8}, (2, 3)),
        ({"stride": 100}, (1, 1)),
        ({"size": (7, 6)}, (7, 6)),
        ({"stride": 1}, (12, 20)),
    ],
)
def test_the_grid_of_a_photograph(options, size):
    affinity = compute_colour_affinity(photo(), **options)
    assert affinity.size == size
    assert affinity.matrix.shape[0] == size[0] * size[1]


def test_photographs_of_any_kind(tmp_path):
    image = photo()
    Image.fromarray(image).save(tmp_path / "photo.png")
    want = compute_colour_affinity(image).matrix.toarray()
    for source in (Image.fromarray(image), tmp_path / "photo.png"):
        np.testing.assert_array_equal(compute_colour_affinity(source).matrix.toarray(), want)
    grey = compute_colour_affinity(image[..., 0], sigma=10)
    np.testing.assert_array_equal(
        grey.matrix.toarray(), compute_colour_affinity(image[..., [0] * 3], sigma=10).matrix.toarray()
    )


def test_a_walk_fills_an_object_and_stops_at_its_edge():
    image = np.full((64, 64, 3), 30, np.uint8)
    image[16:48, 16:48] = (200, 120, 60)
    maps = np.zeros((1, 16, 16), np.float32)
    maps[0, 6, 6] = 1
    walked = propagate(maps, compute_colour_affinity(image), steps=1024)[0]
    inside = walked[4:12, 4:12]
    assert inside.min() > 0.8 * inside.max()
    outside = walked.copy()
    outside[4:12, 4:12] = 0
    assert outside.max() < 1e-6 * inside.min()


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: compute_colour_affinity(photo() / 255), r"an image array must be uint8 of shape \[H,W,3\]"),
        (lambda: compute_colour_affinity("nowhere.png"), "there is no file 'nowhere.png'"),
        (lambda: compute_colour_affinity(photo(), sigma=0), "sigma=0; give a number above 0"),
        (lambda: compute_colour_affinity(photo(), sigma=float("nan")), "sigma=nan"),
        (lambda: compute_colour_affinity(photo(), stride=0), "stride=0; give a whole number of at least 1"),
        (lambda: compute_colour_affinity(photo(), stride=2.5), "stride=2.5"),
        (lambda: compute_colour_affinity(photo(), radius=1), "radius=1"),
        (lambda: compute_colour_affinity(photo(), (0, 4)), "the grid is 0x4"),
    ],
)
def test_bad_photographs_get_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()


# ---- attention


def attention(n=12, heads=3, seed=0):
    raw = np.random.default_rng(seed).standard_normal((heads, n, n))
    return np.exp(raw) / np.exp(raw).sum(-1, keepdims=True)


def test_three_tokens_by_hand():
    """s01 = .5, s12 = .25, s02 = .15, so m = (.5, .5, .25)."""
    given = [[0.2, 0.6, 0.2], [0.4, 0.2, 0.4], [0.1, 0.1, 0.8]]
    full = compute_attention_affinity(given, (3, 1), keep=2).matrix.toarray()
    a12, a02 = 0.25 / 0.125**0.5, 0.15 / 0.125**0.5
    np.testing.assert_allclose(full, [[1, 1, a02], [1, 1, a12], [a02, a12, 1]], rtol=1e-6)
    cut = compute_attention_affinity(given, (3, 1), keep=1).matrix.toarray()
    np.testing.assert_allclose(cut, [[1, 1, 0], [1, 1, a12], [0, a12, 1]], rtol=1e-6)


@pytest.mark.parametrize("keep", [1, 3, 11, 500])
def test_attention_pair_by_pair(keep):
    given = attention()
    s = (given.mean(0) + given.mean(0).T) / 2
    np.fill_diagonal(s, 0)
    order = (-s).argsort(1).argsort(1)  # 0 for the strongest of a row
    want = np.eye(12)
    for i, j in itertools.product(range(12), range(12)):
        if i != j and (order[i, j] < keep or order[j, i] < keep):
            want[i, j] = s[i, j] / np.sqrt(s[i].max() * s[j].max())
    affinity = compute_attention_affinity(given, (3, 4), keep=keep)
    np.testing.assert_allclose(affinity.matrix.toarray(), want, rtol=1e-5)
    assert affinity.matrix.has_canonical_format
    assert affinity.matrix.nnz == (want > 0).sum()
    assert affinity.size == (3, 4)


def test_attention_may_be_a_tensor_of_any_floats():
    want = compute_attention_affinity(attention(), (3, 4)).matrix.toarray()
    for dtype, close in ((torch.float64, 1e-6), (torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)):
        given = torch.from_numpy(attention()).to(dtype).requires_grad_()
        np.testing.assert_allclose(compute_attention_affinity(given, (3, 4)).matrix.toarray(), want, rtol=close)


def test_tokens_without_attention_stand_alone():
    given = np.zeros((4, 4))
    given[0, 1] = 0.3
    matrix = compute_attention_affinity(given, (2, 2), keep=2).matrix.toarray()
    np.testing.assert_allclose(matrix, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], rtol=1e-6)
    assert compute_attention_affinity([[1.0]], (1, 1)).matrix.toarray().tolist() == [[1]]


def test_many_tokens_are_cut_row_by_row():
    given = attention(30 * 20, 1)
    matrix = compute_attention_affinity(given, (30, 20), keep=8).matrix
    counts = np.diff(matrix.indptr)
    assert counts.min() >= 9
    assert matrix.nnz <= 600 * 17
    walked = propagate(
        np.eye(600)[:2].reshape(2, 30, 20), compute_attention_affinity(given, (30, 20)), steps=64, beta=1
    )
    assert np.isfinite(walked).all()


@pytest.mark.parametrize(
    "call,words",
    [
        (
            lambda: compute_attention_affinity(attention(13), (3, 4)),
            r"attention is \[3, 13, 13\] and the grid 3x4; give \[12, 12\]",
        ),
        (lambda: compute_attention_affinity(np.ones(12), (3, 4)), r"attention is \[12\]"),
        (lambda: compute_attention_affinity(np.ones((0, 12, 12)), (3, 4)), r"attention is \[0, 12, 12\]"),
        (lambda: compute_attention_affinity(-attention(), (3, 4)), "negative values"),
        (lambda: compute_attention_affinity(attention() * np.nan, (3, 4)), "holds nan"),
        (lambda: compute_attention_affinity(attention(), (3, 4), keep=0), "keep=0; give a whole number of at least 1"),
        (lambda: compute_attention_affinity(attention(), (3, 4), keep=None), "keep=None"),
        (lambda: compute_attention_affinity(attention(), 12), "size=12"),
    ],
)
def test_bad_attention_gets_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_pairs_beyond_the_radius_are_not_stored():
    affinity = compute_colour_affinity(photo(), stride=2, radius=5)
    n = affinity.matrix.shape[0]
    assert affinity.matrix.nnz <= n * (2 * len(make_half_disc(5)) + 1)
