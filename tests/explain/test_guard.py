"""Warnings of maps that show nothing name the cause."""

from __future__ import annotations

import warnings

import awkward
import numpy as np
import pytest
import torch
from torch import nn

import camplug


def photograph():
    return np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)


def normalised(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1


def told(explainer, classes):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explainer.explain(photograph(), classes)
    assert all(w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


def make(method, model, **options):
    return camplug.create(method, model.eval(), preprocess=normalised, class_names=list("abcde"), **options)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return awkward.FeatureModule()


def test_nothing_is_said_of_maps_that_differ(model):
    assert told(make("gradcam", model), [0, 2, 0]) == []
    assert told(make("eigencam", model), 0) == []


def test_a_head_of_zeros_has_no_gradient(model):
    nn.init.zeros_(model.head.weight)
    says = "no positive evidence for 'b': its gradcam map is all 0, because the score has no gradient there"
    for explainer in (make("gradcam", model), make("MultiView(gradcam, (1.0,))", model)):
        (message,) = told(explainer, 1)
        assert message.startswith(says.replace("gradcam map", f"{explainer.name} map"))


def test_layers_of_zeros(model):
    model.act = nn.Threshold(1e9, 0.0)
    layers = nn.Sequential(model)
    (message,) = told(make("gradcam", layers, layers=["0.act"]), 1)
    assert message.endswith("map is all 0, because its layers hold only zeros.")


def test_evidence_against_the_class_alone(model):
    nn.init.constant_(model.head.weight, -1.0)
    (message,) = told(make("gradcam", model), 1)
    assert message == "no positive evidence for 'b': its gradcam map is all 0; its layers speak against it, if at all."
    nn.init.constant_(model.head.weight, 1.0)
    (message,) = told(make("gradcam", model, evidence="negative"), 1)
    assert message == "no evidence against 'b': its gradcam map is all 0; its layers speak against it, if at all."


def test_classes_with_the_same_map(model):
    (message,) = told(make("eigencam", model), [0, 2])
    assert message == (
        "the eigencam maps of 'a', 'c' are the same: it does not depend on the class; take GradCAM or FullyCAM to tell "
        "them apart."
    )
    model.head.weight.data[3] = model.head.weight.data[1] * 2
    (message,) = told(make("gradcam", model), [0, 1, 3])
    assert message == (
        "the gradcam maps of 'b', 'd' are the same: its layers serve these classes alike; take later ones (layers=), "
        "or Compete."
    )
