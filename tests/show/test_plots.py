"""Curves: where the lines run, what is written, and lines that do not fit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from camplug.errors import InputError
from camplug.show import curves

X = np.arange(1, 100) / 100


def drawn(picture):
    """Where a picture has colours (the lines; all else is black, white and grey), bool [H,W]."""
    pixels = np.asarray(picture).astype(int)
    return pixels.max(2) - pixels.min(2) > 40


def test_a_picture_with_the_line_where_the_values_are():
    picture = curves(X, {"": X**2})
    assert (picture.mode, picture.size) == ("RGB", (572, 374))
    line = drawn(picture)
    columns = np.flatnonzero(line.any(0))
    heights = np.array([np.flatnonzero(line[:, c]).mean() for c in columns])
    share = (columns - columns[0]) / (columns[-1] - columns[0])  # 0 at .01, 1 at .99
    expected = ((0.01 + 0.98 * share) ** 2 - 0.01**2) / (0.99**2 - 0.01**2)
    got = (heights[0] - heights) / (heights[0] - heights[-1])
    assert np.abs(got - expected).max() < 0.02
    assert columns[-1] - columns[0] > 400


def test_the_mark_stands_at_its_place():
    plain, marked = (np.asarray(curves(X, {"": X}, mark=mark)).astype(int) for mark in (None, 0.25))
    line = drawn(curves(X, {"": X}))
    columns = np.flatnonzero(line.any(0))
    changed = np.abs(plain - marked).max(2).sum(0)
    place = (int(changed.argmax()) - columns[0]) / (columns[-1] - columns[0])
    assert abs(place - (0.25 - 0.01) / 0.98) < 0.01


def test_gaps():
    values = X.copy()
    values[40:60] = np.nan
    missing = drawn(curves(X, {"": X})).any(0) & ~drawn(curves(X, {"": values})).any(0)
    assert 0.15 < missing.sum() / drawn(curves(X, {"": X})).any(0).sum() < 0.25
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves(X, {"": [np.nan] * 99}, mark=0.5)  # nothing to draw is no error


def test_names_stand_in_a_legend():
    without = np.asarray(curves(X, {"": X, " ": X}))
    several = np.asarray(curves(X, {"Fully-CAM": X, "CAM": 1 - X}, x_label="x", y_label="y"))
    colours = {tuple(c) for c in several.reshape(-1, 3)[drawn(several).ravel()].tolist()}
    assert {(31, 119, 180), (255, 127, 14)} <= colours
    assert not np.array_equal(without, several)


def test_texts_are_not_read_as_formulas():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves(X, {"": X}, title="cost: $5 for a_b and $\\wrong{", x_label="x", y_label="mIoU [%]")


def test_lines_must_fit():
    with pytest.raises(InputError, match="the line 'a' has 3 values for 99 places"):
        curves(X, {"": X, "a": [1, 2, 3]})
