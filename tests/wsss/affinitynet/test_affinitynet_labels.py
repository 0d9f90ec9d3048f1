"""PSA's scores and training labels: by hand, against pooled crops as the published code makes them, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.affinitynet import add_background_scores, make_alpha_labels
from camplug.wsss.crf import DenseCRF
from camplug.wsss.data import SegmentationData
from camplug.wsss.train import LabelCrops


class Stub:
    """In place of a CRF: keeps what it is given, and gives what it was told, or the probabilities as they came."""

    def __init__(self, *answers):
        self.answers, self.given = list(answers), []

    def refine(self, unary):
        self.given.append(unary)
        scores = np.exp(-unary)
        return self.answers.pop(0) if self.answers else scores / scores.sum(0)


def soft_maps(k, h, w, seed=0):
    """Smooth maps with a maximum of 1 each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    centres = rng.random((k, 2)) * (h, w)
    return np.stack([np.exp(-(((y - a) ** 2 + (x - b) ** 2) / 90)) for a, b in centres])


def pooled_labels(low, high, stride):
    """The published rule on probabilities [K+1,h,w], sides multiples of the stride."""
    pool = torch.nn.AvgPool2d(stride)
    confident, generous = (pool(torch.from_numpy(q)[None])[0].argmax(0).numpy() for q in (low, high))
    labels = confident.copy()
    labels[confident == 0] = 255
    labels[generous == 0] = 0
    return labels


def probabilities(maps, alpha):
    scores = add_background_scores(maps, alpha).clip(1e-5, 1)
    return scores / scores.sum(0)


def test_scores_by_hand():
    maps = np.array([[[0.5, 0.0, 1.0]], [[0.2, 0.1, 0.3]]])
    scores = add_background_scores(maps, 4)
    np.testing.assert_allclose(scores[0], [[0.0625, 0.6561, 0.0]], atol=1e-12)
    np.testing.assert_array_equal(scores[1:], maps)


def test_lower_alpha_makes_more_background():
    maps = soft_maps(2, 12, 15)
    planes = [add_background_scores(maps, alpha)[0] for alpha in (2, 4, 16, 32)]
    assert all((one >= other).all() for one, other in itertools.pairwise(planes))


@pytest.mark.parametrize("kind, made", [("float16", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_scores_keep_the_number_format(kind, made):
    maps = np.full((1, 2, 2), 0.5, kind)
    scores = add_background_scores(maps, 2)
    assert scores.dtype == made
    assert scores[0, 0, 0] == 0.25


def test_scores_without_classes_are_background():
    np.testing.assert_array_equal(add_background_scores(np.zeros((0, 3, 2)), 4), np.ones((1, 3, 2)))


def test_rounding_above_one_is_no_nan():
    assert add_background_scores(np.full((1, 1, 1), 1 + 1e-7), 2.5)[0] == 0


@pytest.mark.parametrize(
    "maps, says",
    [
        (np.zeros((4, 4)), "K,H,W"),
        (np.zeros((1, 4, 4), np.uint8), "uint8"),
        (np.full((1, 2, 2), 1.5), r"0 to 1\.5"),
        (np.full((1, 2, 2), -0.5), r"-0\.5 to 1"),
        (np.full((1, 2, 2), np.nan), "nan"),
    ],
)
def test_scores_refuse_other_maps(maps, says):
    with pytest.raises(InputError, match=says):
        add_background_scores(maps, 4)


@pytest.mark.parametrize("alpha", [0, -1, float("nan"), float("inf")])
def test_scores_refuse_alpha(alpha):
    with pytest.raises(InputError, match="above 0"):
        add_background_scores(np.zeros((1, 2, 2)), alpha)


def test_labels_by_hand():
    """Six cells: m beats (1 - m)^4 above 0.28 or so, and (1 - m)^32 above 0.07 or so."""
    one = np.kron([[0.5, 0.1, 0.0], [0.02, 0.0, 0.2]], np.ones((8, 8)))
    two = np.kron([[0.4, 0.0, 0.0], [0.01, 0.9, 0.1]], np.ones((8, 8)))
    labels = make_alpha_labels(np.stack([one, two]), None)
    assert labels.shape == (16, 24)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[4::8, 4::8], [[1, 255, 0], [0, 2, 255]])
    assert (labels[:5, :5] == 1).all()  # these cells lie inside the first one, as far as they lie in the photograph


@pytest.mark.parametrize("size, stride", [((13, 9), 8), ((9, 14), 3), ((1, 20), 8), ((1, 1), 8), ((7, 7), 1)])
def test_each_label_is_that_of_the_cell_round_it(size, stride):
    maps = soft_maps(2, *size)
    planes = [probabilities(maps, alpha) for alpha in (4, 32)]
    wanted = np.zeros(size, int)
    for y, x in np.ndindex(size):
        top, left = y - stride // 2, x - stride // 2
        cell = slice(max(top, 0), top + stride), slice(max(left, 0), left + stride)
        low, high = (q[:, *cell].mean((1, 2)).argmax() for q in planes)
        wanted[y, x] = 0 if high == 0 else 255 if low == 0 else low
    np.testing.assert_array_equal(make_alpha_labels(maps, None, stride=stride), wanted)


def test_the_middle_of_each_cell_is_the_published_label_of_any_crop():
    maps = soft_maps(3, 37, 45)
    labels = make_alpha_labels(maps, None)
    low, high = probabilities(maps, 4), probabilities(maps, 32)
    seen = set()
    for top, left in np.ndindex(6, 14):
        crop = slice(top, top + 32), slice(left, left + 32)
        wanted = pooled_labels(low[:, *crop], high[:, *crop], 8)
        np.testing.assert_array_equal(labels[crop][4::8, 4::8], wanted)
        seen.update(wanted.ravel().tolist())
    assert {0, 255} < seen


class Single(SegmentationData):
    """One grey photograph."""

    has_masks = False
    classes, ids = ("thing",), ("one",)

    def labels(self, i):
        return (0,)

    def photo(self, i):
        return Image.new("RGB", (32, 32), (128, 128, 128))

    def mask(self, i):
        raise NotImplementedError


def test_crops_take_the_middle_of_each_cell():
    labels = make_alpha_labels(soft_maps(1, 32, 32), None)
    crops = LabelCrops(Single(), lambda i: labels, lambda x: x.float(), crop=32, scales=(1, 1), stride=8)
    both = [labels[4::8, 4::8].tolist(), labels[:, ::-1][4::8, 4::8].tolist()]
    assert both[0] != both[1]
    found = [crops[(epoch, 0)].labels.tolist() for epoch in range(12)]
    assert all(one in both for one in found)
    assert all(one in found for one in both)


def test_the_crf_gets_the_logarithms_of_low_and_high():
    maps, crf = soft_maps(2, 9, 11), Stub()
    labels = make_alpha_labels(maps, crf, low=3, high=20)
    for given, alpha in zip(crf.given, (3, 20), strict=True):
        wanted = -np.log(add_background_scores(maps, alpha).clip(1e-5, 1))
        np.testing.assert_allclose(given, wanted, atol=1e-5)
    np.testing.assert_array_equal(labels, make_alpha_labels(maps, None, low=3, high=20))


def test_background_of_the_high_alpha_has_the_last_word():
    thing, nothing = np.zeros((2, 8, 8)), np.zeros((2, 8, 8))
    thing[1], nothing[0] = 1, 1
    maps = soft_maps(1, 8, 8)
    assert (make_alpha_labels(maps, Stub(thing, nothing)) == 0).all()
    assert (make_alpha_labels(maps, Stub(nothing, thing)) == 255).all()
    assert (make_alpha_labels(maps, Stub(thing, thing)) == 1).all()


def test_a_crf_draws_labels_to_the_edges_of_the_photograph():
    photo = np.zeros((24, 48, 3), np.uint8)
    photo[:, 24:] = 220
    maps = np.zeros((1, 24, 48), np.float32)
    maps[:, :, :12], maps[:, :, 12:24] = 1, 0.2
    without, labels = make_alpha_labels(maps, None), make_alpha_labels(maps, DenseCRF(photo, "affinitynet"))
    assert (without[:, 18] == 255).all()
    assert (labels[:, :20] == 1).all()
    assert (labels[:, 28:] == 0).all()


def test_an_image_without_classes_is_background():
    crf = Stub()
    labels = make_alpha_labels(np.zeros((0, 5, 7)), crf)
    assert labels.tolist() == np.zeros((5, 7)).tolist()
    assert labels.dtype == np.uint8
    assert not crf.given


@pytest.mark.parametrize("low, high", [(32, 4), (0, 4), (-1, 4), (float("nan"), 4), (4, float("inf"))])
def test_alphas_in_the_wrong_order(low, high):
    with pytest.raises(InputError, match="the low one is at most the high one"):
        make_alpha_labels(soft_maps(1, 8, 8), None, low=low, high=high)


def test_equal_alphas_ignore_nothing():
    assert 255 not in make_alpha_labels(soft_maps(2, 16, 16), None, low=8, high=8)


def test_other_bad_input():
    with pytest.raises(InputError, match="stride=0"):
        make_alpha_labels(soft_maps(1, 8, 8), None, stride=0)
    with pytest.raises(InputError, match="255 maps"):
        make_alpha_labels(np.zeros((255, 1, 1)), None)
