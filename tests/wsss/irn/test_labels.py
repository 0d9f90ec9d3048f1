"""IRN's training labels: golden numbers, and what the CRF is asked."""

from __future__ import annotations

import numpy as np
import pytest

from camplug.errors import InputError
from camplug.wsss.crf import DenseCRF
from camplug.wsss.irn.labels import label_with_background, make_ir_labels, merge_labels
from camplug.wsss.pseudo.make import renumber_to_data

MAPS = np.array([[[0.9, 0.2, 0.04, 0.30]], [[0.1, 0.25, 0.01, 0.0]]], np.float32)


def test_with_background_golden_numbers():
    assert label_with_background(MAPS, 0.3).tolist() == [[1, 0, 0, 0]]  # .30 is not above .30
    assert label_with_background(MAPS, 0.05).tolist() == [[1, 2, 0, 1]]
    assert label_with_background(np.zeros((0, 2, 3)), 0.5).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_merged_equals_the_rule():
    for confident in range(3):
        for generous in range(3):
            expected = confident if confident else (255 if generous else 0)
            assert merge_labels(np.array([confident]), np.array([generous])).tolist() == [expected]


def test_labels_without_crf():
    assert make_ir_labels(MAPS, None).tolist() == [[1, 255, 0, 255]]
    assert make_ir_labels(MAPS, None, foreground=0.2, background=0.2).tolist() == [[1, 2, 0, 1]]
    assert make_ir_labels(MAPS, None).dtype == np.uint8


def test_labels_follow_the_photograph_with_crf():
    """The seed is 3 columns off; the CRF moves both labels to the edge in the photograph."""
    photo = np.full((40, 60, 3), 30, np.uint8)
    photo[:, 30:] = 220
    maps = np.zeros((1, 40, 60), np.float32)
    maps[:, :, 27:] = 0.9
    assert (make_ir_labels(maps, None)[:, 27:30] == 1).all()
    labels = make_ir_labels(maps, DenseCRF(photo, "irn"))
    assert (labels[:, 30:] == 1).all()
    assert (labels[:, :30] == 0).all()


def test_without_classes_all_is_background():
    assert make_ir_labels(np.zeros((0, 3, 4), np.float32), None).tolist() == [[0] * 4] * 3


def test_in_data():
    assert renumber_to_data(np.array([[0, 1], [2, 255]]), (4, 11)).tolist() == [[0, 5], [12, 255]]
    assert renumber_to_data(np.array([0, 255]), ()).tolist() == [0, 255]


@pytest.mark.parametrize(("fg", "bg"), [(0.1, 0.2), (1.0, 0.1), (0.3, -0.1)])
def test_thresholds_refused(fg, bg):
    with pytest.raises(InputError, match=f"thresholds {fg:g} for objects and {bg:g}"):
        make_ir_labels(MAPS, None, foreground=fg, background=bg)
