"""Confusion matrices: golden counts, a loop over pixels as reference, merging, large counts, bad input."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import camplug.metrics
from camplug.errors import InputError
from camplug.metrics import ConfusionMatrix, miou


def by_hand(pairs, num_classes, ignore=255):
    """The matrix by a loop over pixels."""
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for prediction, truth in pairs:
        for said, true in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if true != ignore:
                matrix[true][said] += 1
    return np.array(matrix)


def random_pairs(seed, num_classes, dtype=np.uint8, images=6):
    """Label images of several sizes with ignored pixels; the last class never occurs in the truth."""
    rng = np.random.default_rng(seed)
    for _ in range(images):
        size = tuple(rng.integers(1, 9, 2))
        truth = rng.integers(0, num_classes - 1, size).astype(dtype)
        truth[rng.random(size) < 0.2] = 255
        yield rng.integers(0, num_classes, size).astype(dtype), truth


def test_golden_counts():
    truth = np.array([[0, 0, 1], [2, 255, 2]], np.uint8)
    prediction = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
    matrix = ConfusionMatrix(3).add(prediction, truth).matrix
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert matrix.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64])
@pytest.mark.parametrize("num_classes", [2, 5, 81])
def test_equals_the_loop(num_classes, dtype):
    pairs = list(random_pairs(num_classes, num_classes, dtype))
    counted = ConfusionMatrix(num_classes)
    for prediction, truth in pairs:
        counted.add(prediction, truth)
    assert np.array_equal(counted.matrix, by_hand(pairs, num_classes))


def test_batches_single_pixels_and_images_without_counted_pixels():
    matrix = ConfusionMatrix(2)
    matrix.add(np.ones((2, 3, 4), np.uint8), np.ones((2, 3, 4), np.uint8))
    matrix.add(np.array([[0]]), np.array([[1]]))
    matrix.add(np.zeros((3, 3), int), np.full((3, 3), 255))
    matrix.add(np.zeros((0, 3)), np.zeros((0, 3)))
    assert matrix.matrix.tolist() == [[0, 0], [1, 24]]


def test_a_prediction_may_hold_anything_where_the_truth_is_ignored():
    assert ConfusionMatrix(2).add(np.array([255, -7, 1]), np.array([255, 255, 1])).matrix.tolist() == [[0, 0], [0, 1]]


def test_ignore_may_be_negative():
    assert ConfusionMatrix(2, ignore=-1).add(np.array([0, 1]), np.array([-1, 1])).matrix.tolist() == [[0, 0], [0, 1]]
    assert ConfusionMatrix(2, ignore=-1).add(np.array([0], np.uint8), np.array([1], np.uint8)).matrix.sum() == 1


def test_merging_shards_equals_a_single_pass():
    pairs = list(random_pairs(3, 4))
    whole, left, right = (ConfusionMatrix(4) for _ in range(3))
    for place, pair in enumerate(pairs):
        whole.add(*pair)
        (left if place % 2 else right).add(*pair)
    before = left.matrix.copy()
    assert np.array_equal((left + right).matrix, whole.matrix)
    assert np.array_equal(left.matrix, before), "+ leaves its operands alone"
    left += right
    assert np.array_equal(left.matrix, whole.matrix)


def test_counts_beyond_int32():
    large = ConfusionMatrix(2)
    large.matrix[:] = [[2**31 - 1, 0], [5, 2**33]]  # COCO val: some 40,137 x 640 x 480 = 1.2e10 pixels
    large.add(np.array([0, 1]), np.array([0, 1]))
    large += large
    assert large.matrix.tolist() == [[2**32, 0], [10, 2**34 + 2]]
    assert float(miou(large.matrix)) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(
    "prediction,truth,words",
    [
        ([[0, 3]], [[0, 1]], "prediction holds the label 3; labels go from 0 to 2"),
        ([[0, -1]], [[0, 1]], "prediction holds the label -1"),
        ([[0, 1]], [[0, 7]], "truth holds the label 7; labels go from 0 to 2 .* and 255 is left out"),
        ([[0, 1]], [[0, -1]], "truth holds the label -1"),
        ([[0, 1]], [[0], [1]], r"prediction is \[1, 2\] and truth \[2, 1\]; resize"),
        ([[0.0, 1.0]], [[0, 1]], "prediction is of type float64; give an array of integers"),
        ([[0, 1]], [[True, False]], "truth is of type bool"),
    ],
)
def test_bad_input_gets_one_sentence_and_counts_nothing(prediction, truth, words):
    matrix = ConfusionMatrix(3)
    with pytest.raises(InputError, match=words):
        matrix.add(np.array(prediction), np.array(truth))
    assert not matrix.matrix.any()


@pytest.mark.parametrize(
    "options,words",
    [
        ({"num_classes": 0}, "num_classes=0: give 1 or more"),
        ({"num_classes": 2.5}, "num_classes=2.5: give a whole number"),
        ({"num_classes": 300}, "ignore=255 is one of the classes 0 to 299; give another value"),
        ({"num_classes": 3, "ignore": None}, "ignore=None: give a whole number"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(InputError, match=re.escape(words)):
        ConfusionMatrix(**options)


def test_unlike_matrices_are_not_merged():
    with pytest.raises(InputError, match=r"num_classes=2.*num_classes=3"):
        ConfusionMatrix(2) + ConfusionMatrix(3)
    with pytest.raises(InputError, match=r"ignore=255.*ignore=-1"):
        ConfusionMatrix(2) + ConfusionMatrix(2, ignore=-1)
    with pytest.raises(InputError, match="not a value of type ndarray"):
        ConfusionMatrix(2) + np.zeros((2, 2))


def test_the_package_imports_numpy_the_errors_and_numbers_of_json_only():
    allowed = ("camplug.errors", "camplug.json_values", "camplug.metrics")
    for path in Path(camplug.metrics.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not name.startswith("torch"), path
                assert not name.startswith("camplug") or name.startswith(allowed), path
