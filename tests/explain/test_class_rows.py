"""Classes of several photographs: names and indices are never labels, and labels do not depend on the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camplug
from camplug.errors import TargetError

PHOTOS = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)) for i in range(3)]
NAMES = ["cat", "dog", "bird"]


def explainer(classes, **options):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    given = {"class_names": NAMES[:classes], "preprocess": camplug.Preprocess((8, 8), mean=0.5, std=0.5)} | options
    return camplug.GradCAM(nn.Sequential(*layers).eval(), **given)


@pytest.mark.filterwarnings("ignore:no positive evidence")
@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["dog", "cat", "dog"], [1, 0, 1]),
        (["dog", "dog"], [1, 1]),
        (["cat", "cat"], [0, 0]),
        (["1", "0", "1"], [1, 0, 1]),
    ],
)
def test_names_that_repeat_are_no_labels(names, classes):
    for count in (2, 3):
        assert explainer(count).explain(PHOTOS[0], names).classes == classes


@pytest.mark.filterwarnings("ignore:no positive evidence")
@pytest.mark.parametrize("make", [torch.tensor, np.array, list])
def test_labels_do_not_depend_on_the_batches(make):
    rows = make([[0, 1], [1, 0], [1, 1]])
    for size in (1, 2, 8):
        found = explainer(2).explain(PHOTOS, rows, batch_size=size)
        assert [one.classes for one in found] == [[1], [0], [0, 1]]


def test_a_matrix_that_may_be_labels_or_indices_is_refused():
    for size in (1, 8):
        with pytest.raises(TargetError, match="can be labels of the model's 2 classes or their indices"):
            explainer(2).explain(PHOTOS, torch.tensor([[0, 1], [1, 0], [0, 1]]), batch_size=size)


def test_batch_size_is_checked():
    with pytest.raises(camplug.InputError, match="batch_size=0; give a whole number"):
        explainer(2).explain(PHOTOS, 0, batch_size=0)


@pytest.mark.parametrize(
    "given", [np.array(NAMES), dict(zip(NAMES, range(3), strict=True)), dict(enumerate(NAMES)), tuple(NAMES)]
)
def test_class_names_of_any_kind(given):
    assert explainer(3, class_names=given).explain(PHOTOS[0], "dog").names == ["dog"]


@pytest.mark.parametrize("given", ["cat", [1, 2, 3], 5, np.arange(3)])
def test_class_names_that_are_none(given):
    with pytest.raises(TargetError, match="holds no names; give one text per class"):
        explainer(3, class_names=given).explain(PHOTOS[0], 1)


def test_outputs_are_counted_where_the_model_s_own_count_does_not_fit_its_names():
    one = explainer(3, class_names=None)
    one.model.num_classes, one.model.classes = 4, NAMES
    assert one.explain(PHOTOS[0], "dog").classes == [1]


def test_a_class_with_a_nan_output():
    one = explainer(3)
    with torch.no_grad():
        one.model[4].bias[2] = float("nan")
    with pytest.warns(UserWarning, match="the model's output is NaN for bird, so that there are no probabilities"):
        result = one.explain(PHOTOS[0], "dog")
    told = result.to_dict()
    assert told["explained"][0]["probability"] is None
    assert told["explained"][0]["output"] == pytest.approx(result.scores[0])


def test_a_model_that_makes_three_colours_of_grey_reads_grey():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model = nn.Sequential(nn.Conv2d(1, 3, 1), body).eval()
    reads = camplug.Preprocess((8, 8), mean=0.5, std=0.5, channels=1)
    result = camplug.GradCAM(model, preprocess=reads).explain(PHOTOS[0], 1)
    x, _ = reads(PHOTOS[0])
    assert x.shape == (1, 8, 8)
    torch.testing.assert_close(result.maps, camplug.GradCAM(model).maps(x[None], 1))
