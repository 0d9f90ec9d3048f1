"""Scores of a matrix: numbers worked by hand, the three means of trap T4, loops as reference, leading axes."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from camplug.errors import InputError
from camplug.metrics import Scores, false_discovery_rate, iou, miou, precision, recall

CONVENTIONS = ("present", "all", "truth")

# class 0: 3 of 4 true pixels found; class 1: perfect; class 2: predicted only; class 3: nowhere
MATRIX = np.array([[3, 0, 1, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def slow(matrix):
    """Per class (iou, precision, recall, fdr), and the three means, by loops over the definition."""
    size = range(len(matrix))
    rows, means = [], {"present": [], "all": [], "truth": []}
    for c in size:
        tp = int(matrix[c][c])
        fp = sum(int(matrix[r][c]) for r in size if r != c)
        fn = sum(int(matrix[c][p]) for p in size if p != c)
        value = tp / (tp + fp + fn) if tp + fp + fn else math.nan
        rows.append(
            (
                value,
                tp / (tp + fp) if tp + fp else math.nan,
                tp / (tp + fn) if tp + fn else math.nan,
                fp / (tp + fp) if tp + fp else math.nan,
            )
        )
        if tp + fp + fn:
            means["present"].append(value)
        if tp + fn:
            means["truth"].append(value)
        means["all"].append(value if tp + fp + fn else 0)
    return np.array(rows).T, {k: sum(v) / len(v) if v else math.nan for k, v in means.items()}


def test_golden_numbers():
    nan = math.nan
    np.testing.assert_equal(iou(MATRIX), [0.75, 1, 0, nan])
    np.testing.assert_equal(precision(MATRIX), [1, 1, 0, nan])
    np.testing.assert_equal(recall(MATRIX), [0.75, 1, nan, nan])
    np.testing.assert_equal(false_discovery_rate(MATRIX), [0, 0, 1, nan])


def test_one_confusion_has_three_means():
    assert miou(MATRIX, "present") == pytest.approx(1.75 / 3)
    assert miou(MATRIX, "all") == pytest.approx(1.75 / 4)
    assert miou(MATRIX, "truth") == pytest.approx(1.75 / 2)
    assert miou(MATRIX) == miou(MATRIX, "present")


def test_trap_t4():
    perfect = np.diag([10, 10, 0])  # two classes without a mistake, the third is absent
    assert [round(float(miou(perfect, c)), 3) for c in CONVENTIONS] == [1.0, 0.667, 1.0]


def test_seam_formula_but_for_its_epsilon():
    hit, union = np.array([3, 4, 0, 0]), np.array([4, 4, 1, 0])
    assert miou(MATRIX, "all") == pytest.approx(np.mean(hit / (union + 1e-10)), abs=1e-9)


def test_equals_the_loop_with_leading_axes():
    rng = np.random.default_rng(0)
    matrices = rng.integers(0, 9, (2, 3, 5, 5))
    matrices[0, 1, 2] = matrices[0, 1, :, 2] = 0  # absent
    matrices[1, 0, 3] = 0  # predicted only
    matrices[1, 2, :, 1] = 0  # never predicted
    matrices[0, 0] = 0  # nothing at all
    for place in np.ndindex(2, 3):
        rows, means = slow(matrices[place])
        for function, row in zip((iou, precision, recall, false_discovery_rate), rows, strict=True):
            np.testing.assert_allclose(function(matrices)[place], row)
        for convention in CONVENTIONS:
            np.testing.assert_allclose(miou(matrices, convention)[place], means[convention])
    assert iou(matrices).shape == (2, 3, 5)
    assert miou(matrices).shape == (2, 3)


def test_false_discovery_rate_is_one_minus_precision():
    matrix = np.random.default_rng(1).integers(0, 99, (21, 21))
    np.testing.assert_allclose(false_discovery_rate(matrix), 1 - precision(matrix))


def test_classes_average_over_a_subset_of_the_same_ious():
    assert miou(MATRIX, "present", [0, 2]) == pytest.approx(0.375)
    assert miou(MATRIX, "truth", [0, 2]) == pytest.approx(0.75)
    assert miou(MATRIX, "all", [1, 3]) == pytest.approx(0.5)
    assert np.isnan(miou(MATRIX, "present", [3]))
    assert miou(MATRIX, "present", np.array([0, 1])) == pytest.approx(0.875)


def test_no_int32_overflow():
    small = np.array([[2**31 - 1, 2**31 - 1], [0, 2**31 - 1]], np.int32)
    np.testing.assert_allclose(iou(small), [0.5, 0.5])
    assert Scores.of(small).pixels == 3 * (2**31 - 1)


def test_scores_of_a_matrix():
    scores = Scores.of(MATRIX, names=["background", "cat", "cow", "dog"], classes=[0, 1])
    assert (scores.pixels, scores.pixel_accuracy) == (8, 7 / 8)
    assert (scores.miou_present, scores.miou_all, scores.miou_truth) == (0.875, 0.875, 0.875)
    assert scores.as_dict() == {
        "pixels": 8,
        "pixel_accuracy": 0.875,
        "miou": {"present": 0.875, "all": 0.875, "truth": 0.875},
        "classes_in_mean": {"present": 2, "all": 2, "truth": 2},
        "averaged_over": ["background", "cat"],
        "per_class": {
            "background": {"iou": 0.75, "precision": 1.0, "recall": 0.75, "false_discovery_rate": 0.0},
            "cat": {"iou": 1.0, "precision": 1.0, "recall": 1.0, "false_discovery_rate": 0.0},
            "cow": {"iou": 0.0, "precision": 0.0, "recall": None, "false_discovery_rate": 1.0},
            "dog": {"iou": None, "precision": None, "recall": None, "false_discovery_rate": None},
        },
    }
    assert Scores.of(MATRIX).classes_in_mean() == {"present": 3, "all": 4, "truth": 2}
    with pytest.raises(AttributeError):
        scores.pixels = 3


def test_scores_of_nothing_are_json():
    values = Scores.of(np.zeros((2, 2), int)).as_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["pixel_accuracy"] is None
    assert values["miou"] == {"present": None, "all": 0.0, "truth": None}
    assert list(values["per_class"]) == ["0", "1"]


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: iou(np.zeros((2, 3), int)), r"the matrix is \[2, 3\]; give counts"),
        (lambda: iou(np.zeros(3, int)), r"the matrix is \[3\]"),
        (lambda: iou(np.eye(2)), "the matrix is of type float64; give counts of pixels"),
        (lambda: iou([[1, -4], [0, 1]]), "the matrix holds -4; .* overflow"),
        (lambda: miou(MATRIX, "mean"), "convention='mean': give one of 'present', 'all', 'truth'"),
        (lambda: miou(MATRIX, classes=[]), r"classes=\[\]: give one or more"),
        (lambda: miou(MATRIX, classes=[0, 0]), r"classes=\[0, 0\]: give one or more different numbers from 0 to 3"),
        (lambda: miou(MATRIX, classes=[4]), r"classes=\[4\]"),
        (lambda: miou(MATRIX, classes=[-1]), r"classes=\[-1\]"),
        (lambda: miou(MATRIX, classes=["cat"]), "a number in classes='cat': give a whole number"),
        (lambda: Scores.of(MATRIX[None]), r"the matrix is \[1, 4, 4\]; Scores are of one matrix"),
        (lambda: Scores.of(MATRIX, names=["a"]), "1 names, 1 of them different, for 4 classes"),
        (lambda: Scores.of(MATRIX, names=list("aabc")), "4 names, 3 of them different, for 4 classes"),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
