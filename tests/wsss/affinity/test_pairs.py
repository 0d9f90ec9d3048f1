"""Offsets, paths and shifted slices against index arithmetic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from camplug.errors import InputError
from camplug.wsss.affinity import make_half_disc, make_path, slice_ends, slice_path


@pytest.mark.parametrize("radius,number", [(2, 4), (3, 12), (5, 34), (10, 152)])
def test_the_half_disc_and_its_mirror_are_the_disc(radius, number):
    half = make_half_disc(radius)
    assert len(half) == len(set(half)) == number
    span = range(-radius, radius + 1)
    disc = {(dy, dx) for dy, dx in itertools.product(span, span) if 0 < np.hypot(dy, dx) < radius - 1e-9}
    assert disc == {*half, *((-dy, -dx) for dy, dx in half)}
    assert all(offset > (0, 0) for offset in half)
    assert list(half) == sorted(half)


@pytest.mark.parametrize("radius", [1, 0, -3, 2.0, "5", None])
def test_bad_radii_get_one_sentence(radius):
    with pytest.raises(InputError, match=r"radius=.*; give a whole number of positions, at least 2"):
        make_half_disc(radius)


def test_lengths_of_paths():
    assert {len(make_path(*offset)) for offset in make_half_disc(5)} == {2, 3, 4, 5, 6, 7, 8, 10, 11}
    assert max(len(make_path(*offset)) for offset in make_half_disc(10)) == 22


@pytest.mark.parametrize("offset", make_half_disc(10))
def test_a_path_is_all_positions_near_the_line_and_connects_its_ends(offset):
    dy, dx = offset
    found = make_path(dy, dx)
    assert (found[0], found[-1]) == (offset, (0, 0))
    near = {
        (y, x)
        for y in range(-10, 11)
        for x in range(-10, 11)
        if min(0, dy) <= y <= max(0, dy)
        and min(0, dx) <= x <= max(0, dx)
        and abs(dy * x - dx * y) / np.hypot(dy, dx) < 1 - 1e-9
    }
    assert near == set(found)
    assert len(found) == len(near)
    reached, edge = {(0, 0)}, {(0, 0)}
    while edge:
        edge = {p for p in near - reached if any(max(abs(p[0] - y), abs(p[1] - x)) == 1 for y, x in edge)}
        reached |= edge
    assert reached == near


@pytest.mark.parametrize("size", [(6, 7), (1, 9), (9, 1), (1, 1), (3, 2)])
@pytest.mark.parametrize("library", [np, torch])
def test_slices_are_all_pairs_on_the_grid_in_reading_order(size, library):
    h, w = size
    x = library.arange(2 * h * w).reshape(2, h, w)
    for dy, dx in make_half_disc(5):
        source, destination = slice_ends(x, dy, dx)
        want = [(y, c) for y, c in itertools.product(range(h), range(w)) if y + dy < h and 0 <= c + dx < w]
        assert source[1].flatten().tolist() == [h * w + y * w + c for y, c in want]
        assert destination[0].flatten().tolist() == [(y + dy) * w + c + dx for y, c in want]
        assert source.shape == destination.shape
        views = list(slice_path(x, dy, dx))
        assert [v.shape for v in views] == [source.shape] * len(make_path(dy, dx))
        for view, (py, px) in zip(views, make_path(dy, dx), strict=True):
            assert view[0].flatten().tolist() == [(y + py) * w + c + px for y, c in want]


def test_slices_are_views():
    x = np.zeros((4, 4))
    slice_ends(x, 1, -2)[0][:] = 1
    assert x.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
