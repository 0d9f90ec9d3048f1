"""Overlays and grids, pixel by pixel where that is decided by the arguments."""

from __future__ import annotations

import warnings

import matplotlib
import numpy as np
import pytest
from scipy import ndimage

from camplug.errors import InputError
from camplug.show import colorize, grid, overlay

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (60, 90, 3), dtype=np.uint8)
HEAT = RNG.random((60, 90)).astype(np.float32)
RED = np.full((60, 90, 3), (255, 0, 0), np.uint8)
NOTHING = np.zeros((60, 90))


def panels(picture, colour):
    """Boxes (top, left, bottom, right) of the parts of a picture that have this colour."""
    parts, _ = ndimage.label(np.abs(np.asarray(picture).astype(int) - colour).max(2) <= 2)
    found = ndimage.find_objects(parts)
    return [(s[0].start, s[1].start, s[0].stop, s[1].stop) for s in found if (s[0].stop - s[0].start) > 20]


def test_colours_are_those_of_matplotlib():
    for colors in ("inferno", "viridis", "gray"):
        expected = (matplotlib.colormaps[colors](HEAT)[..., :3] * 255).astype(np.uint8)
        got = colorize(HEAT, colors)
        assert got.dtype == np.uint8
        assert np.abs(got.astype(int) - expected).max() <= 1
    assert colorize(np.array([[0.0, 1.0]]), "gray").tolist() == [[[0, 0, 0], [255, 255, 255]]]
    assert colorize(np.array([[-3.0, 7.0]]), "gray").tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_unknown_colours():
    with pytest.raises(InputError, match="there is no colour map 'hot pink'; for instance inferno, viridis"):
        colorize(HEAT, "hot pink")
    with pytest.raises(InputError, match="there is no colour map"):
        grid(PHOTO, [HEAT], ["a"], colors="hot pink")
    with pytest.raises(InputError, match="there is no colour map"):
        grid(PHOTO, [], [], colors="hot pink")


def test_opacity_mixes_photograph_and_colours():
    colour = colorize(HEAT)
    np.testing.assert_array_equal(np.asarray(overlay(PHOTO, HEAT, opacity=0, bar=False)), PHOTO)
    np.testing.assert_array_equal(np.asarray(overlay(PHOTO, HEAT, opacity=1, fade=False, bar=False)), colour)
    half = np.asarray(overlay(PHOTO, HEAT, opacity=0.25, fade=False, bar=False)).astype(float)
    assert np.abs(half - (0.75 * PHOTO + 0.25 * colour)).max() <= 0.5
    faded = np.asarray(overlay(PHOTO, HEAT, opacity=0.8, bar=False)).astype(float)
    share = 0.8 * HEAT[..., None]
    assert np.abs(faded - ((1 - share) * PHOTO + share * colour)).max() <= 0.51


def test_the_photograph_is_as_it_was_where_the_map_is_zero():
    heat = np.where(np.indices((60, 90))[1] < 45, 0.0, 1.0)
    drawn = np.asarray(overlay(PHOTO, heat, bar=False))
    np.testing.assert_array_equal(drawn[:, :45], PHOTO[:, :45])


def test_an_outline_runs_along_the_threshold():
    heat = np.zeros((60, 90))
    heat[20:40, 30:70] = 0.5
    changed = (np.asarray(overlay(RED, heat, opacity=0, contour=0.5, bar=False)) != RED).any(2)
    rows, columns = np.nonzero(changed)
    assert np.abs(np.array([rows.min(), rows.max(), columns.min(), columns.max()]) - (20, 39, 30, 69)).max() <= 2
    assert not changed[23:37, 33:67].any()
    white = np.asarray(overlay(RED, heat, opacity=0, contour=0.5, bar=False))[20, 30:70]
    assert (white == 255).all()
    assert not (np.asarray(overlay(RED, heat, opacity=0, contour=0.6, bar=False)) != RED).any()
    with pytest.raises(InputError, match=r"contour=1\.5; give a value above 0"):
        overlay(RED, heat, contour=1.5)


def test_boxes_are_drawn_on_their_pixels():
    drawn = np.asarray(overlay(RED, NOTHING, boxes=[(10, 20, 30, 50)], bar=False))
    assert (drawn[20, 10:30] == 255).all()
    assert (drawn[49, 10:30] == 255).all()
    assert (drawn[20:50, 29] == 255).all()
    assert (drawn[25:45, 15:25] == RED[0, 0]).all()


def test_what_the_model_did_not_see_is_hatched():
    outside = np.zeros((60, 90), bool)
    outside[:, 60:] = True
    drawn = np.asarray(overlay(RED, NOTHING, outside=outside, bar=False))
    np.testing.assert_array_equal(drawn[:, :60], RED[:, :60])
    assert (drawn[:, 60:] == 150).all(2).mean() == pytest.approx(0.2, abs=0.01)


def test_a_title_stands_above_and_is_cut_where_it_is_too_long():
    plain, titled = (np.asarray(overlay(RED, NOTHING, title=t, bar=False)) for t in (None, "fully: a cat"))
    long = np.asarray(overlay(RED, NOTHING, title="w" * 500, bar=False))
    assert titled.shape == long.shape
    high = len(titled) - len(plain)
    np.testing.assert_array_equal(titled[high:], plain)
    assert (titled[:high] < 100).any()


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_opacity_outside(opacity):
    with pytest.raises(InputError, match=rf"opacity={opacity}; allowed are 0 to 1"):
        overlay(PHOTO, HEAT, opacity=opacity)


def test_sizes_must_fit():
    with pytest.raises(InputError, match=r"the photograph is \(60, 90\) and the map \(90, 60\)"):
        overlay(PHOTO, HEAT.T)


def test_the_bar_stands_beside_the_picture_and_runs_from_one_down_to_zero():
    bare, barred = overlay(PHOTO, HEAT, bar=False), overlay(PHOTO, HEAT)
    assert barred.height == bare.height
    pixels = np.asarray(barred).astype(int)
    np.testing.assert_array_equal(pixels[:, :90], np.asarray(bare))
    column = next(x for x in range(90, barred.width) if (pixels[:, x] != 255).any(1).all())  # the first of the bar
    share = 0.8 * np.linspace(1, 0, 60)[:, None]
    expected = (1 - share) * 127 + share * colorize(np.linspace(1, 0, 60)[:, None])[:, 0].astype(float)
    assert np.abs(pixels[:, column] - expected).max() <= 1
    assert (pixels[:, 90:column] == 255).all()
    written = (pixels[:, column + 12 :] < 128).any((1, 2))  # "1" at the top, "0.5", and "0" at the bottom
    assert written[:8].any()
    assert written[26:34].any()
    assert written[-8:].any()


@pytest.mark.parametrize("shape", [(2, 2), (2, 400), (400, 2), (700, 500)])
def test_pictures_of_any_shape(shape):
    photo, heat = np.zeros((*shape, 3), np.uint8), np.ones(shape)
    picture = np.asarray(overlay(photo, heat))
    np.testing.assert_array_equal(picture[:, : shape[1]], np.asarray(overlay(photo, heat, bar=False)))


def test_the_arguments_are_not_changed():
    photo, heat = PHOTO.copy(), HEAT.copy()
    overlay(photo, heat)
    grid(photo, [heat], ["a"])
    np.testing.assert_array_equal(photo, PHOTO)
    np.testing.assert_array_equal(heat, HEAT)


@pytest.mark.parametrize(
    "maps,columns,rows", [(0, None, [1]), (3, None, [4]), (4, 5, [5]), (7, None, [5, 3]), (3, 2, [2, 2])]
)
def test_photograph_and_maps_stand_side_by_side(maps, columns, rows):
    titles = [f"map {i}" for i in range(maps)]
    picture = grid(RED, [NOTHING] * maps, titles, columns=columns, opacity=0)
    found = panels(picture, (255, 0, 0))
    assert len(found) == maps + 1
    tops = sorted({box[0] for box in found})
    assert [sum(box[0] == top for box in found) for top in tops] == rows
    for top, left, bottom, right in found:
        assert (right - left) / (bottom - top) == pytest.approx(1.5, rel=0.03)


def test_the_first_panel_is_the_photograph_and_the_others_are_the_overlays_in_order():
    levels = [0.2, 0.5, 0.9]
    picture = grid(RED, [np.full((60, 90), v) for v in levels], ["a", "b", "c"], colors="gray", opacity=1, fade=False)
    ((top, left, bottom, _),) = panels(picture, (255, 0, 0))
    greys = [panels(picture, np.array([round(v * 255)] * 3)) for v in levels]
    row = [next(b for b in boxes if abs(b[0] - top) <= 1 and abs(b[2] - bottom) <= 1) for boxes in greys]
    lefts = [left] + [b[1] for b in row]
    assert lefts == sorted(lefts)
    assert len(set(lefts)) == 4


def test_titles_are_drawn_as_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = grid(RED, [NOTHING], ["a"], opacity=0)
        odd = grid(RED, [NOTHING], [r"$\frac{$"], title=r"$5 and \nosuch$", opacity=0)  # no formula
        tall = grid(RED, [NOTHING], ["a"], title="over everything", opacity=0)
    assert odd.size == tall.size
    assert tall.height > plain.height
    assert len(panels(odd, (255, 0, 0))) == 2


def test_one_title_per_map():
    with pytest.raises(InputError, match="1 maps and 2 titles; give one title per map"):
        grid(PHOTO, [HEAT], ["a", "b"])


@pytest.mark.parametrize("shape", [(2, 2), (10, 600), (600, 10)])
def test_grids_of_narrow_photographs(shape):
    photo = np.full((*shape, 3), (255, 0, 0), np.uint8)
    picture = np.asarray(grid(photo, [np.zeros(shape)] * 2, ["a", "b"], opacity=0)).astype(int)
    red = (picture[..., 0] > 200) & (picture[..., 1] < 60)
    assert red.sum() > 100
    assert max(picture.shape) < 6000


GREY = PHOTO.mean(2).round().astype(np.uint8)
ALPHA = RNG.integers(0, 256, (60, 90, 1), dtype=np.uint8)
KINDS = {
    "floats": (PHOTO / 255, PHOTO),
    "float32": ((PHOTO / 255).astype(np.float32), PHOTO),
    "float16": ((GREY / 255).astype(np.float16), np.repeat(GREY[..., None], 3, 2)),
    "grey": (GREY, np.repeat(GREY[..., None], 3, 2)),
    "grey of one channel": (GREY[..., None], np.repeat(GREY[..., None], 3, 2)),
    "grey floats": (GREY / 255, np.repeat(GREY[..., None], 3, 2)),
    "RGBA": (
        np.concatenate([PHOTO, ALPHA], 2),
        (PHOTO * (ALPHA / 255) + 255 * (1 - ALPHA / 255)).round().astype(np.uint8),
    ),
    "opaque floats": (np.concatenate([PHOTO / 255, np.ones((60, 90, 1))], 2), PHOTO),
}


@pytest.mark.parametrize("kind", KINDS)
def test_photographs_of_all_kinds(kind):
    given, pixels = KINDS[kind]
    before = given.copy()
    for options in ({"opacity": 0, "bar": False}, {}):
        got, want = (np.asarray(overlay(p, HEAT, **options)).astype(int) for p in (given, pixels))
        assert np.abs(got - want).max() <= 1
    first, second = (np.asarray(grid(p, [HEAT], ["a"])).astype(int) for p in (given, pixels))
    assert first.shape == second.shape
    assert np.abs(first - second).max() <= 2
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize(
    "given,says",
    [
        (PHOTO * 1.0, r"a photograph of float64 must lie in \[0, 1\]; got 0 to 255"),
        (PHOTO / 127.5 - 1, r"must lie in \[0, 1\]; got -1 to 1. Undo its normalisation"),
        (np.full((60, 90, 3), np.nan), r"must lie in \[0, 1\]; got nan"),
        (PHOTO.astype(np.int64), "must be uint8, or floating-point numbers in .*; got int64"),
        (PHOTO[..., :2], r"the photograph is an array \[60, 90, 2\]; give \[H,W,3\], grey"),
        (PHOTO[None], r"array \[1, 60, 90, 3\]"),
        (PHOTO[:0], r"array \[0, 90, 3\]"),
    ],
)
def test_arrays_that_are_no_photograph(given, says):
    for draw in (lambda: overlay(given, HEAT), lambda: grid(given, [HEAT], ["a"])):
        with pytest.raises(InputError, match=says):
            draw()
