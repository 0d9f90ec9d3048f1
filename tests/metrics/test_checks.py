"""Checks of labels and maps: what passes unchanged, and the sentence for what does not."""

from __future__ import annotations

import numpy as np
import pytest

from camplug.errors import InputError
from camplug.metrics import checks


def test_whole_numbers():
    assert checks.check_num_classes(np.int64(21), 255) == (21, 255)
    assert checks.check_num_classes(1, -1) == (1, -1)
    for given, says in (((2.0, 255), "num_classes=2.0: give a whole number"), ((0, 255), "num_classes=0: give 1 or")):
        with pytest.raises(InputError, match=says):
            checks.check_num_classes(*given)
    with pytest.raises(InputError, match="ignore=20 is one of the classes 0 to 20"):
        checks.check_num_classes(21, 20)


def test_integers_keep_their_type_and_empty_ones_become_int64():
    labels = np.array([1, 2], np.uint8)
    assert checks.check_integers(labels, "labels") is labels
    assert checks.check_integers([], "labels").dtype == np.int64
    for values in ([1.0], [True], ["a"]):
        with pytest.raises(InputError, match=r"labels is of type .*; give an array of integers"):
            checks.check_integers(values, "labels")


def test_truth_without_ignored_pixels():
    counted, truth = checks.check_truth(np.array([[0, 255], [2, 1]], np.uint8), 3, 255)
    assert counted.tolist() == [[True, False], [True, True]]
    assert truth.tolist() == [0, 2, 1]
    assert truth.dtype == np.int64
    for value in (3, -1):
        with pytest.raises(InputError, match=f"truth holds the label {value}; labels go from 0 to 2 .*255 is left out"):
            checks.check_truth(np.array([0, value]), 3, 255)


def test_maps():
    just_above = np.nextafter(np.float32(1), np.float32(2))
    for good in (np.array([0, 255], np.uint8), np.array([0.0, 1.0]), np.array([just_above]), np.zeros((0, 2, 2), int)):
        checks.check_maps(good)
    for bad, says in (
        (np.array([0, 1]), "maps are of type int64"),
        (np.array([0.5, np.nan]), "the maps hold nan"),
        (np.array([0.0, 1.001]), "the maps go from 0 to 1.001"),
        (np.array([-0.25, 1.0]), "the maps go from -0.25 to 1"),
    ):
        with pytest.raises(InputError, match=says):
            checks.check_maps(bad)
