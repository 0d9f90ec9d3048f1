"""Unary potentials: numbers by hand, unsure pixels, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from camplug.errors import InputError
from camplug.wsss.crf import make_unary_from_labels, make_unary_from_scores


def test_labels_by_hand():
    """IRN: -log .7 for the label, -log(.3 / 2) for the other two."""
    unary = make_unary_from_labels(np.array([[0, 2]], np.uint8), 3)
    assert unary.dtype == np.float32
    assert unary.shape == (3, 1, 2)
    np.testing.assert_allclose(unary[:, 0, 0], [0.35667494, 1.89711998, 1.89711998], rtol=1e-6)
    np.testing.assert_allclose(unary[:, 0, 1], [1.89711998, 1.89711998, 0.35667494], rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 21])
@pytest.mark.parametrize("certainty", [0.5, 0.7, 0.99])
def test_probabilities_of_labels(classes, certainty):
    labels = np.arange(classes * 2).reshape(2, -1) % classes
    p = np.exp(-make_unary_from_labels(labels, classes, certainty))
    np.testing.assert_allclose(p.sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(p, labels[None], 0), certainty, rtol=1e-5)


def test_unsure_pixels_may_be_any_class():
    unary = make_unary_from_labels(np.array([[255, 1]]), 4)
    np.testing.assert_allclose(unary[:, 0, 0], np.log(4), rtol=1e-6)
    assert unary[:, 0, 1].argmin() == 1
    assert np.array_equal(unary, make_unary_from_labels(np.array([[-1, 1]]), 4, unsure=-1))


def test_255_is_a_class_if_there_are_so_many():
    unary = make_unary_from_labels(np.array([[255]]), 256, unsure=None)
    assert unary[:, 0, 0].argmin() == 255


def test_one_class():
    assert np.array_equal(make_unary_from_labels(np.array([[0, 255]]), 1), np.zeros((1, 1, 2)))


def test_scores_by_hand():
    """PSA: -log p, p not below 1e-5; they need not add up to 1."""
    unary = make_unary_from_scores(np.array([[[0.9, 0.0]], [[0.9, 2.0]]]))
    assert unary.dtype == np.float32
    np.testing.assert_allclose(unary[:, 0], [[0.10536052, 11.512925], [0.10536052, 0]], rtol=1e-5)
    np.testing.assert_allclose(make_unary_from_scores(np.zeros((1, 1, 1), np.float16), clip=0.1), 2.3025851, rtol=1e-6)


LABELS = np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: make_unary_from_labels(LABELS / 1, 2), "labels is of type float64; give an array of integers"),
        (lambda: make_unary_from_labels(LABELS[0], 2), r"labels are \[2\]; give one label image \[H, W\]"),
        (lambda: make_unary_from_labels(LABELS, 0), "classes=0: give 1 or more"),
        (lambda: make_unary_from_labels(LABELS, 1.5), "classes=1.5: give a whole number"),
        (
            lambda: make_unary_from_labels(LABELS + 2, 2),
            "holds the label 2; labels go from 0 to 1 .*, and 255 means unsure",
        ),
        (lambda: make_unary_from_labels(LABELS - 1, 2, unsure=None), "holds the label 255; labels go from 0 to 1"),
        (lambda: make_unary_from_labels(LABELS.astype(int) - 1, 2), "holds the label -1"),
        (lambda: make_unary_from_labels(LABELS, 2, 1.0), "certainty=1.0: give a probability between 0 and 1"),
        (lambda: make_unary_from_labels(LABELS, 2, 0), "certainty=0:"),
        (lambda: make_unary_from_labels(LABELS, 2, np.nan), "certainty=nan:"),
        (
            lambda: make_unary_from_labels(LABELS, 300),
            "unsure=255 is one of the classes 0 to 299; give another .* None",
        ),
        (lambda: make_unary_from_labels(LABELS, 3, unsure=2), "unsure=2 is one of the classes"),
        (lambda: make_unary_from_scores(LABELS / 1), r"scores are float64 \[2, 2\]; give floats \[K, H, W\]"),
        (lambda: make_unary_from_scores(LABELS[None]), r"scores are uint8 \[1, 2, 2\]; give floats"),
        (lambda: make_unary_from_scores(np.full((1, 1, 1), np.nan)), "scores hold nan or infinite values"),
        (lambda: make_unary_from_scores(np.full((1, 1, 1), np.inf)), "scores hold nan or infinite values"),
        (lambda: make_unary_from_scores(np.ones((1, 1, 1)), 0), "clip=0: give a number above 0"),
        (lambda: make_unary_from_scores(np.ones((1, 1, 1)), 1.1), "clip=1.1: "),
        (lambda: make_unary_from_scores(np.ones((1, 1, 1)), np.nan), "clip=nan: "),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
