"""The threshold sweep against padded planes and argmax at each threshold: ties, types, groups, shards, cost, errors."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

from camplug.errors import InputError
from camplug.metrics import ConfusionMatrix, ThresholdSweep, apply_best_threshold, miou

GRID = [0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.95]


def labels_at(maps, classes, threshold):
    """Label image at one threshold, as the published code makes it: a constant plane in front, then argmax."""
    values = maps / 255 if maps.dtype == np.uint8 else maps
    plane = np.full((1, *maps.shape[1:]), threshold, values.dtype)
    return np.array([0, *(c + 1 for c in classes)])[np.concatenate([plane, values]).argmax(0)]


def slow(images, num_classes, thresholds):
    """[T, C, C]: one confusion matrix per threshold, one pass each, one pixel at a time."""
    matrices = np.zeros((len(thresholds), num_classes, num_classes), np.int64)
    for matrix, threshold in zip(matrices, thresholds, strict=True):
        for maps, classes, truth in images:
            for said, true in zip(labels_at(maps, classes, threshold).flat, truth.flat, strict=True):
                if true != 255:
                    matrix[true, said] += 1
    return matrices


def random_images(seed, num_classes=6, dtype=np.float32, images=12):
    """Images of 0 to 4 classes; half of the values lie on the grid exactly (as the type stores it), with ties."""
    rng = np.random.default_rng(seed)
    for number in range(images):
        size = (1, 1) if number == 3 else tuple(rng.integers(1, 8, 2))
        classes = rng.permutation(num_classes - 1)[: number % 5].tolist()
        shape = (len(classes), *size)
        values = np.where(rng.random(shape) < 0.5, rng.choice([*GRID, 0.5, 1], shape), rng.random(shape))
        maps = np.round(values * 255).astype(dtype) if dtype == np.uint8 else values.astype(dtype)
        truth = rng.integers(0, num_classes - 1, size).astype(np.uint8)  # the last class never occurs
        truth[rng.random(size) < 0.2] = 255
        if number == 5:
            truth[:] = 255
        yield maps, classes, truth


def swept(images, num_classes=6, thresholds=GRID):
    sweep = ThresholdSweep(num_classes, thresholds)
    for image in images:
        sweep.add(*image)
    return sweep


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.uint8])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_a_pass_per_threshold(seed, dtype):
    images = list(random_images(seed, dtype=dtype))
    matrices = swept(images).matrices
    assert matrices.dtype == np.int64
    assert np.array_equal(matrices, slow(images, 6, GRID))


def test_equals_the_confusion_matrix_of_its_labels():
    images = list(random_images(2))
    counted = ConfusionMatrix(6)
    for maps, classes, truth in images:
        counted.add(labels_at(maps, classes, 0.3), truth)
    assert np.array_equal(swept(images).at(0.3), counted.matrix)


def test_the_default_grid():
    sweep = ThresholdSweep(2)
    assert sweep.thresholds.tolist() == [i / 100 for i in range(1, 100)]
    images = list(random_images(4, images=4))
    assert np.array_equal(swept(images, thresholds=None).matrices, slow(images, 6, sweep.thresholds))


def test_golden_matrices():
    maps = np.array([[[0.9, 0.5, 0.1]], [[0.2, 0.6, 0.1]]])
    sweep = ThresholdSweep(3, [0.05, 0.3, 0.7])
    sweep.add(maps, [1, 0], np.array([[2, 2, 0]]))  # highest: label 2 at .9, label 1 at .6, label 2 at .1 (the first)
    assert sweep.matrices.tolist() == [
        [[0, 0, 1], [0, 0, 0], [0, 1, 1]],
        [[1, 0, 0], [0, 0, 0], [0, 1, 1]],
        [[1, 0, 0], [0, 0, 0], [1, 0, 1]],
    ]
    np.testing.assert_allclose(sweep.scores(), [(0 + 0 + 1 / 3) / 3, (1 + 0 + 1 / 2) / 3, (1 / 2 + 1 / 2) / 2])
    assert sweep.as_dict() == {"thresholds": sweep.thresholds.tolist(), "miou": sweep.scores().tolist()}
    assert sweep.best() == (0.3, 0.5), "the first of two equal ones"


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("value", [0.1, 0.2, 0.3, 0.4, 0.6, 0.7])
def test_a_value_equal_to_the_threshold_is_background_in_every_type(value, dtype):
    above, below = np.nextafter(dtype(value), dtype(1)), np.nextafter(dtype(value), dtype(0))
    sweep = ThresholdSweep(2, GRID)
    sweep.add(np.array([[[below, dtype(value), above]]]), [0], np.array([[1, 1, 1]]))
    assert sweep.at(value)[1].tolist() == [2, 1]


def test_uint8_ties_like_its_float():
    maps = np.array([[[50, 51, 52]]], np.uint8)  # 51 / 255 = .2
    for given in (maps, maps / 255, (maps / 255).astype(np.float32)):
        sweep = ThresholdSweep(2, [0.2])
        sweep.add(given, [0], np.array([[1, 1, 1]]))
        assert sweep.matrices[0, 1].tolist() == [2, 1]


def test_zero_is_background_at_threshold_zero():
    sweep = ThresholdSweep(2, [0])
    sweep.add(np.array([[[0, 1e-30]]]), [0], np.array([[1, 1]]))
    assert sweep.matrices[0, 1].tolist() == [1, 1]


def test_empty_images():
    sweep = ThresholdSweep(3, [0.2, 0.5])
    sweep.add(np.zeros((0, 2, 2)), [], np.array([[0, 1], [1, 255]]))  # no class: all background
    sweep.add(np.ones((2, 1, 1)), [0, 1], np.array([[255]]))  # nothing counted
    sweep.add(np.ones((1, 1, 1), np.float16), [1], np.array([[2]]))
    assert sweep.matrices.tolist() == [[[1, 0, 0], [2, 0, 0], [0, 0, 1]]] * 2
    assert sweep.images == {0: 1, 1: 1, 2: 1}


def test_ignored_pixels_do_not_count_whatever_the_maps_say():
    first, second = (ThresholdSweep(2, GRID) for _ in range(2))
    truth = np.array([[1, 255]])
    first.add(np.array([[[0.5, 0.0]]]), [0], truth)
    second.add(np.array([[[0.5, 1.0]]]), [0], truth)
    assert np.array_equal(first.matrices, second.matrices)


def test_groups_by_the_number_of_classes():
    images = list(random_images(6, images=20))
    sweep = swept(images)
    sizes = {min(len(classes), 3) for _, classes, _ in images}
    assert sweep.groups == tuple(sorted(sizes)) == (0, 1, 2, 3)
    for group in sweep.groups:
        members = [image for image in images if min(len(image[1]), 3) == group]
        assert sweep.images[group] == len(members)
        assert np.array_equal(sweep.matrices_of(group), slow(members, 6, GRID))
    assert np.array_equal(sum(sweep.matrices_of(g) for g in sweep.groups), sweep.matrices)


def test_a_group_of_your_own():
    sweep = ThresholdSweep(2, [0.5])
    sweep.add(np.ones((1, 1, 1)), [0], np.array([[1]]), group=7)
    assert sweep.groups == (7,)
    assert sweep.matrices_of(7).tolist() == [[[0, 0], [0, 1]]]


def test_merging_shards_equals_a_single_pass():
    images = list(random_images(7))
    left, right, whole = swept(images[:5]), swept(images[5:]), swept(images)
    before = left.matrices
    both = left + right
    for group in whole.groups:
        assert np.array_equal(both.matrices_of(group), whole.matrices_of(group))
    assert both.images == whole.images
    assert np.array_equal(left.matrices, before), "+ leaves its operands alone"
    left += right
    assert np.array_equal(left.matrices, whole.matrices)


def test_state_survives_npz_without_pickle(tmp_path):
    sweep = swept(list(random_images(8)))
    np.savez(tmp_path / "sweep.npz", **sweep.state())
    with np.load(tmp_path / "sweep.npz", allow_pickle=False) as file:
        again = ThresholdSweep.from_state(file)
    assert (again.num_classes, again.ignore, again.images) == (sweep.num_classes, sweep.ignore, sweep.images)
    assert np.array_equal(again.thresholds, sweep.thresholds)
    for group in sweep.groups:
        assert np.array_equal(again.matrices_of(group), sweep.matrices_of(group))
    again.add(*next(random_images(9)))
    assert not np.array_equal(again.matrices, sweep.matrices), "a copy of its own"
    assert np.array_equal(pickle.loads(pickle.dumps(sweep)).matrices, sweep.matrices)
    assert ThresholdSweep.from_state(ThresholdSweep(2).state()).images == {}


def test_counts_beyond_int32():
    sweep = ThresholdSweep(2, [0.5])
    sweep.add(np.array([[[0.2, 0.8]]]), [0], np.array([[1, 1]]))
    for _ in range(33):
        sweep += sweep
    assert sweep.matrices.tolist() == [[[0, 0], [2**33, 2**33]]]
    assert sweep.images == {1: 2**33}


def test_scores_best_and_at():
    images = list(random_images(10))
    sweep, matrices = swept(images), slow(images, 6, GRID)
    for convention in ("present", "all", "truth"):
        for classes in (None, [0, 1, 2]):
            expected = [float(miou(m, convention, classes)) for m in matrices]
            np.testing.assert_allclose(sweep.scores(convention, classes), expected)
            assert sweep.best(convention, classes) == (GRID[int(np.argmax(expected))], max(expected))
    assert np.array_equal(sweep.at(0.1 + 0.2), matrices[GRID.index(0.3)])


def test_chosen_on_one_split_and_reported_on_another():
    train, val = swept(list(random_images(11))), swept(list(random_images(12)))
    threshold, score = apply_best_threshold(train, val, "all", [0, 1])
    assert threshold == train.best("all", [0, 1])[0]
    assert score == miou(val.at(threshold), "all", [0, 1]) <= val.best("all", [0, 1])[1]


def test_best_passes_over_thresholds_without_a_score():
    sweep = ThresholdSweep(3, [0.2, 0.5])
    sweep.add(np.array([[[0.4]]]), [1], np.array([[0]]))
    np.testing.assert_equal(sweep.scores(classes=[1]), [np.nan, np.nan])
    assert sweep.as_dict(classes=[1])["miou"] == [None, None]
    np.testing.assert_equal(sweep.scores(classes=[2]), [0, np.nan])
    assert sweep.best(classes=[2]) == (0.2, 0)


def test_the_cost_of_an_image_does_not_grow_with_the_thresholds(monkeypatch):
    calls = []
    for name in ("bincount", "searchsorted", "cumsum"):
        monkeypatch.setattr(
            np, name, lambda *a, _name=name, _real=getattr(np, name), **k: calls.append(_name) or _real(*a, **k)
        )
    images = list(random_images(13))
    seen = {}
    for number in (3, 300):
        calls.clear()
        sweep = swept(images, thresholds=np.linspace(0, 0.99, number))
        assert calls.count("bincount") == len(images)
        assert "cumsum" not in calls, "matrices are made on demand"
        assert sweep.matrices.shape == (number, 6, 6)
        seen[number] = list(calls)
        assert all(h.shape == (6, 6, number + 1) for h in sweep.histograms.values())
    assert seen[3] == seen[300]


def test_rounding_of_a_resize_is_no_error():
    sweep = ThresholdSweep(2, [0.5])
    sweep.add(np.array([[[1.0000001, -1e-8]]], np.float32), [0], np.array([[1, 0]]))
    assert sweep.matrices.tolist() == [[[1, 0], [0, 1]]]


TRUTH = np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize(
    "maps,classes,truth,words",
    [
        (np.full((1, 2, 2), np.nan), [0], TRUTH, "the maps hold nan"),
        (np.full((1, 2, 2), 3.5), [0], TRUTH, "the maps go from 3.5 to 3.5; divide each by its maximum"),
        (np.full((1, 2, 2), -0.5), [0], TRUTH, "the maps go from -0.5 to -0.5"),
        (np.full((1, 2, 2), np.inf), [0], TRUTH, "the maps go from inf to inf"),
        (np.ones((1, 2, 2), np.int64), [0], TRUTH, "maps are of type int64; give floats in .* uint8"),
        (np.ones((2, 2)), [0], TRUTH, r"maps are \[2, 2\] and truth \[2, 2\]; give maps \[K, H, W\]"),
        (np.ones((1, 2, 3)), [0], TRUTH, r"maps are \[1, 2, 3\] and truth \[2, 2\]"),
        (np.ones((2, 2, 2)), [0], TRUTH, r"2 maps and classes \[0\]; give a list with one class for each map"),
        (np.ones((1, 2, 2)), 0, TRUTH, "1 maps and classes 0"),
        (np.ones((2, 2, 2)), [1, 1], TRUTH, r"classes \[1, 1\] name one class twice"),
        (np.ones((1, 2, 2)), [2], TRUTH, r"class 2 is not one of 0 to 1; classes are counted without the background"),
        (np.ones((1, 2, 2)), [-1], TRUTH, "class -1 is not one of 0 to 1"),
        (np.ones((1, 2, 2)), [0.5], TRUTH, "classes is of type float64"),
        (np.ones((1, 2, 2)), [0], TRUTH + 3, "truth holds the label 3; labels go from 0 to 2"),
        (np.ones((1, 2, 2)), [0], TRUTH / 1, "truth is of type float64"),
    ],
)
def test_bad_images_get_one_sentence_and_count_nothing(maps, classes, truth, words):
    sweep = ThresholdSweep(3, GRID)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=words):
            sweep.add(maps, classes, truth)
    assert sweep.groups == ()


def edited(**changes):
    state = swept(list(random_images(14, images=3))).state()
    return {k: v for k, v in {**state, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: ThresholdSweep(3, [0.2, 0.1]), "thresholds go from 0.2 to 0.1; give increasing numbers"),
        (lambda: ThresholdSweep(3, [0.2, 0.2]), "each one once"),
        (lambda: ThresholdSweep(3, [0.2, 1.0]), "from 0 to below 1"),
        (lambda: ThresholdSweep(3, [-0.1, 0.5]), "thresholds go from -0.1 to 0.5"),
        (lambda: ThresholdSweep(3, [0.1, np.nan]), "thresholds go from 0.1 to nan"),
        (lambda: ThresholdSweep(3, [np.nan]), "thresholds go from nan to nan"),
        (lambda: ThresholdSweep(3, []), r"thresholds are \[0\]; give a list of one or more"),
        (lambda: ThresholdSweep(3, 0.3), r"thresholds are \[\]"),
        (lambda: ThresholdSweep(0), "num_classes=0"),
        (lambda: ThresholdSweep(3, GRID).at(0.33), "threshold 0.33 is not on the grid .* the nearest is 0.3,"),
        (lambda: ThresholdSweep(3, GRID).at(np.nan), "threshold nan is not on the grid"),
        (lambda: ThresholdSweep(3).best(), "no pixel was counted"),
        (lambda: ThresholdSweep(3).best("all"), "no pixel was counted"),
        (lambda: ThresholdSweep(3).matrices_of(2), "no image was added to group 2; groups with images: none yet"),
        (lambda: swept([(np.ones((1, 1, 1)), [0], np.array([[1]]))]).matrices_of(2), "groups with images: 1$"),
        (lambda: ThresholdSweep(3).add(np.ones((0, 2, 2)), [], TRUTH, group="two"), "group='two': give a whole number"),
        (lambda: ThresholdSweep(3) + ThresholdSweep(4), "num_classes=3, .* num_classes=4"),
        (lambda: ThresholdSweep(3) + ThresholdSweep(3, GRID), "99 thresholds, the other 8, and they differ"),
        (lambda: ThresholdSweep(3) + 3, "not a value of type int"),
        (lambda: apply_best_threshold(swept(random_images(0)), ThresholdSweep(6, [0.5])), "not on the grid"),
        (lambda: ThresholdSweep.from_state(edited(images=None, groups=None)), "lacks groups, images"),
        (lambda: ThresholdSweep.from_state(edited(thresholds=np.array([0.5]))), "its other arrays ask for"),
    ],
)
def test_bad_use_gets_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
