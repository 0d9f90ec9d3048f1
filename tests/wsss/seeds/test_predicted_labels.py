"""Labels that a classifier predicts in place of those of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import camplug
from camplug.errors import InputError
from camplug.wsss.data import Scenes
from camplug.wsss.seeds.predicted_labels import PredictedLabels
from camplug.wsss.store.jobs import Mismatch

READS = camplug.Preprocess((8, 8), (0.0,) * 3, (1.0,) * 3, keep_aspect=False)


class Colours(nn.Module):
    """Logits that follow from the mean of a colour: class k is shown where it is above a half."""

    multi_label = True

    def __init__(self, names, order):
        super().__init__()
        self.class_names, self.order = names, order
        self.conv = nn.Conv2d(3, len(order), 1, bias=False)
        self.conv.weight.data.zero_()
        for output, colour in enumerate(order):
            self.conv.weight.data[output, colour] = 20.0

    def forward(self, x):
        return self.conv(x).mean((2, 3)) - 10


class Painted(Scenes):
    """Photographs of one colour."""

    def __init__(self, *colours):
        super().__init__(len(colours), (16, 16), classes=3)
        self.colours = colours
        self.classes = ("red", "green", "blue")

    def photo(self, i):
        from PIL import Image

        return Image.new("RGB", (16, 16), self.colours[i])


DATA = Painted((255, 0, 0), (255, 0, 200), (0, 60, 30))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_most_probable_class_and_all_above_the_probability(order):
    names = [DATA.classes[c] for c in order]
    data = PredictedLabels(DATA, camplug.GradCAM(Colours(names, order), preprocess=READS))
    assert [data.labels(i) for i in range(3)] == [(0,), (0, 2), (1,)]
    often = PredictedLabels(DATA, camplug.GradCAM(Colours(names, order), preprocess=READS), 1e-4)
    assert [often.labels(i) for i in range(3)] == [(0,), (0, 2), (1, 2)]  # sigmoid(20 * 60 / 255 - 10) is 0.005
    assert data.label_digest(1) == data.photo_digest(1)
    assert (data.classes, data.ids, data.has_labels) == (DATA.classes, DATA.ids, True)
    np.testing.assert_array_equal(data.mask(2), DATA.mask(2))


def test_classifiers_that_do_not_fit_and_values_that_are_no_probabilities():
    explainer = camplug.GradCAM(Colours(["red", "green", "sand"], (0, 1, 2)), preprocess=READS)
    with pytest.raises(InputError, match="blue"):
        PredictedLabels(DATA, explainer)
    nameless = camplug.GradCAM(
        nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), preprocess=READS
    )
    with pytest.raises(Mismatch, match="the model has 5 classes and the data has 3"):
        PredictedLabels(DATA, nameless).labels(0)
    with pytest.raises(InputError, match=r"probability=1\.5; give a number from 0 to 1"):
        PredictedLabels(DATA, explainer, 1.5)
    assert torch.is_grad_enabled()
