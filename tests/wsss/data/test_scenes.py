"""Drawn scenes: the same whatever is asked first, exact in masks and parts, and as hard as the options say."""

from __future__ import annotations

import numpy as np
import pytest

from camplug.errors import InputError
from camplug.wsss.data import Scenes
from camplug.wsss.data.painting import (
    EARTHS,
    HEADS,
    SHAPES,
    compute_polygon_distance,
    compute_segment_distance,
    make_outline,
)
from camplug.wsss.data.scenes import SMALL_PIXELS, draw_large_scene, draw_small_scene


def all_of(data, i):
    return np.asarray(data.photo(i)), data.mask(i), data.part(i), data.labels(i)


def test_an_image_depends_on_seed_and_index_alone():
    few, many = Scenes(4, (32, 40), seed=3), Scenes(1000, (32, 40), seed=3)
    forward = [all_of(few, i) for i in range(4)]
    draw_small_scene.cache_clear()
    for i in (2, 0, 3, 1, 2):
        for a, b in zip(all_of(many, i), forward[i], strict=True):
            np.testing.assert_array_equal(a, b)
    other = Scenes(4, (32, 40), seed=4)
    assert all((np.asarray(other.photo(i)) != forward[i][0]).mean() > 0.5 for i in range(4))
    assert few.ids == ("scene3_000000", "scene3_000001", "scene3_000002", "scene3_000003")


def test_what_is_handed_out_is_the_callers_own():
    data = Scenes(2, (16, 16))
    data.mask(0)[:] = 9
    data.part(0)[:] = 9
    data.photo(0).paste((0, 0, 0), (0, 0, 16, 16))
    assert data.mask(0).max() <= 6
    assert data.part(0).max() == 2
    assert np.asarray(data.photo(0)).any()


def test_scenes_are_drawn_once_and_shared_by_equal_data():
    draw_small_scene.cache_clear()
    for data in (Scenes(3, (32, 40), seed=5), Scenes(9, (32, 40), seed=5)):
        for i in range(3):
            all_of(data, i)
    assert draw_small_scene.cache_info().misses == 3
    draw_large_scene.cache_clear()
    side = int(SMALL_PIXELS**0.5) + 1
    data = Scenes(6, (side, side))
    for i in range(6):
        all_of(data, i)
    assert (draw_large_scene.cache_info().misses, draw_large_scene.cache_info().currsize) == (6, 4)


def test_labels_are_the_classes_in_the_mask_and_parts_cover_the_objects():
    data = Scenes(60, classes=12, seed=1)
    counts = []
    for i in range(len(data)):
        photo, mask, part, labels = all_of(data, i)
        assert photo.shape == (96, 96, 3)
        assert mask.dtype == part.dtype == np.uint8
        assert labels == tuple(np.unique(mask)[np.unique(mask) > 0] - 1)
        np.testing.assert_array_equal(part > 0, mask > 0)
        for c in labels:  # heads stay in sight: without one, nothing would tell the class
            assert (part[mask == c + 1] == 1).mean() > 0.2
            assert (part[mask == c + 1] == 1).sum() >= 20
        counts.append(len(labels))
    assert set(counts) == {1, 2, 3}
    assert len(set(data.classes)) == 12
    assert data.classes[0] == "striped disc"


@pytest.mark.parametrize("plain", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_plain_is_the_bodies_share(plain):
    data = Scenes(12, plain=plain, objects=(1, 1))
    for i in range(len(data)):
        part = data.part(i)
        assert (part == 2).sum() / (part > 0).sum() == pytest.approx(plain, abs=0.02)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_cooccurrence_is_how_often_a_class_stands_on_its_ground(share):
    data = Scenes(400, (16, 16), cooccurrence=share, objects=(1, 1), seed=2)
    own = np.mean([(data.ground(i),) == data.labels(i) for i in range(400)])
    assert own == pytest.approx(share + (1 - share) / 6, abs=0.06)


def test_grounds_are_told_apart_by_their_colours():
    data = Scenes(60, (48, 48), cooccurrence=0, noise=0)
    colours = EARTHS[:6].mean(1)
    colours = colours / colours.sum(1, keepdims=True)  # whatever the light
    right = []
    for i in range(len(data)):
        seen = np.asarray(data.photo(i))[data.mask(i) == 0].mean(0)
        right.append(np.abs(colours - seen / seen.sum()).sum(1).argmin() == data.ground(i))
    assert np.mean(right) > 0.7


def test_another_size_shows_the_same_scene():
    small, large = Scenes(20, (40, 60)), Scenes(20, (120, 180))
    for i in range(20):
        assert small.labels(i) == large.labels(i)
        assert (small.mask(i) == large.mask(i)[1::3, 1::3]).mean() > 0.97
        a, b = (np.asarray(d.photo(i)).mean((0, 1)) for d in (small, large))
        assert np.abs(a - b).max() < 6


@pytest.mark.parametrize("size", [(16, 16), (16, 90), (90, 17), (33, 65)])
def test_any_size_from_16(size):
    data = Scenes(30, size, objects=(3, 3))
    for i in range(len(data)):
        photo, mask, part, labels = all_of(data, i)
        assert photo.shape == (*size, 3)
        assert mask.shape == part.shape == size
        assert labels
        assert set(np.unique(part)) == {0, 1, 2}
        assert 0.02 < (mask > 0).mean() < 0.7


def test_objects_touch_no_border_alone():
    data = Scenes(40, objects=(1, 1))
    for i in range(40):
        mask = data.mask(i)
        rim = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert (rim > 0).mean() < 0.05


def test_noise_is_the_pixels_deviation():
    quiet, loud = Scenes(1, noise=0), Scenes(1, noise=0.05)
    difference = np.asarray(loud.photo(0)).astype(float) - np.asarray(quiet.photo(0))
    assert difference.std() / 255 == pytest.approx(0.05, rel=0.05)
    np.testing.assert_array_equal(quiet.mask(0), loud.mask(0))


def test_likeness_takes_bodies_to_their_heads_colour():
    options = {"objects": (1, 1), "noise": 0, "light": 0}
    differences = []
    for likeness in (0.0, 0.5, 1.0):
        data = Scenes(60, likeness=likeness, **options)
        apart = []
        for i in range(len(data)):
            seen = np.asarray(data.photo(i)).astype(float)[data.part(i) == 2].mean(0)
            main = HEADS[data.labels(i)[0]][0]
            apart.append(np.abs(seen / seen.sum() - main / main.sum()).sum())  # whatever the light
        differences.append(np.mean(apart))
    assert differences[0] > 1.3 * differences[1]
    assert differences[1] > 1.3 * differences[2]
    np.testing.assert_array_equal(data.mask(3), Scenes(60, **options).mask(3))


def test_light_is_how_much_brightness_changes_across():
    even, uneven = (Scenes(300, (16, 16), noise=0, light=light, seed=3) for light in (0, 1.4))
    slopes = []
    for i in range(len(even)):
        a, b = (np.asarray(d.photo(i)).astype(float).mean(2) for d in (even, uneven))
        ratio = b / a
        down, across = (np.polyfit(np.arange(16) / 16, ratio.mean(axis), 1)[0] for axis in (1, 0))
        slopes.append(np.hypot(down, across))
    assert np.mean(slopes) == pytest.approx(1.4 / 2, abs=0.05)  # uniform from 0 on
    assert max(slopes) < 1.4 * 1.05


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_have_area_1(shape):
    y, x = (np.mgrid[0:300, 0:300] + 0.5) / 100 - 1.5
    x, y = 0.8 * x - 0.6 * y, 0.6 * x + 0.8 * y  # no edge along the pixels
    assert (compute_polygon_distance(x, y, make_outline(shape)) < 0).sum() / 100**2 == pytest.approx(1, abs=0.01)


def test_distances_by_hand():
    corners = np.array([(0.0, 0.0), (4.0, 0.0), (4.0, 2.0), (0.0, 2.0)])
    x, y = np.array([[2.0, 7.0, 4.5]]), np.array([[1.0, 6.0, 1.0]])
    assert compute_polygon_distance(x, y, corners).tolist() == [[-1.0, 5.0, 0.5]]
    assert compute_segment_distance(x, y, (0.0, 0.0), (2.0, 0.0)).tolist() == [[1.0, np.hypot(5, 6), np.hypot(2.5, 1)]]
    assert compute_segment_distance(np.array([[3.0]]), np.array([[4.0]]), (0.0, 0.0), (0.0, 0.0)).tolist() == [[5.0]]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"count": 0}, "count=0: scenes need a whole number, 1 or more"),
        ({"count": 2.5}, "count=2.5"),
        ({"seed": -1}, "seed=-1"),
        ({"classes": 13}, "classes=13: scenes need a whole number, from 1 to 12"),
        ({"size": (15, 20)}, r"size \(height, width\)=15"),
        ({"size": 96}, r"size \(height, width\)=96: scenes need two"),
        ({"objects": (2, 1)}, "the least first"),
        ({"objects": (0, 1)}, "objects .*=0"),
        ({"cooccurrence": 1.1}, "cooccurrence=1.1: scenes need a number from 0 to 1"),
        ({"plain": float("nan")}, "plain=nan"),
        ({"noise": "loud"}, "noise='loud'"),
        ({"likeness": -0.1}, "likeness=-0.1: scenes need a number from 0 to 1"),
        ({"light": 1.5}, "light=1.5: scenes need a number from 0 to 1.4"),
    ],
)
def test_options_out_of_range(options, word):
    with pytest.raises(InputError, match=word):
        Scenes(**{"count": 1, **options})


def test_index_out_of_range():
    with pytest.raises(InputError, match="image 2 does not exist"):
        Scenes(2).mask(2)
