"""Predictions of a recipe with the labels that its classifier predicts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from recipes import TINY, Heard, keys, open_stages, tiny

import camplug
from camplug.errors import InputError
from camplug.wsss.classifier.checkpoint import load_classifier
from camplug.wsss.deeplab import Segmenter, load_deeplab
from camplug.wsss.recipe import make_recipe, run_recipe
from camplug.wsss.recipe.report_summary import describe_next_steps
from camplug.wsss.recipe.sample import Sample
from camplug.wsss.recipe.stage import get_stage
from camplug.wsss.seeds.predicted_labels import PredictedLabels

SHORT = {"refine": None, "pseudo_labels": {"threshold": 0.3, "crf": "none"}, "evaluate": {"products_on": ["train"]}}
PREDICTED = {"labels": "predicted", "probability": 0.4}
MODEL = "timm:test_efficientnet"
NAME = "predictions labels predicted val"


def test_they_add_a_stage_and_change_no_other():
    ordinary, found = keys(tiny()), keys(tiny(segment=PREDICTED))
    assert [name for name in found if name not in ordinary] == [NAME, f"evaluate {NAME}"]
    assert {name: key for name, key in found.items() if name in ordinary} == ordinary
    other = keys(tiny(segment=PREDICTED | {"probability": 0.3}))
    assert {name for name in found if found[name] != other[name]} == {NAME, f"evaluate {NAME}"}


def test_a_given_classifier_is_named_by_its_settings():
    sections = {**TINY, "classifier": {"given": {"model": MODEL, "num_classes": 3}}, "segment": PREDICTED}
    recipe = make_recipe(sections)
    stage = open_stages(recipe)[NAME]
    assert set(stage.inputs) == {"deeplab"}
    assert stage.settings["network"]["model"] == MODEL
    for found in (stage, open_stages(tiny(segment=PREDICTED))[NAME]):
        assert get_stage("predictions").estimate(found, Sample(recipe.data["val"].open())).seconds > 0


def test_wrong_settings():
    with pytest.raises(InputError, match="probability has no effect without labels: predicted"):
        tiny(segment={"probability": 0.3})
    with pytest.raises(InputError, match="give a number from 0 to 1"):
        tiny(segment={"labels": "predicted", "probability": 3})
    with pytest.raises(InputError, match="labels"):
        tiny(segment={"labels": "given"})


def test_they_are_those_of_the_segmenter_and_the_classifier(tmp_path):
    recipe = tiny(**SHORT, segment=PREDICTED)
    report = run_recipe(recipe, tmp_path)
    classifier, network = load_classifier(tmp_path / "classifier.pt"), load_deeplab(tmp_path / "network.pt")
    val = recipe.data["val"].open()
    segmenter = Segmenter(network, crf="deeplab")
    labelled = PredictedLabels(val, camplug.create("GradCAM", classifier), 0.4)
    (folder,) = (tmp_path / "cache").glob("predictions-labels-predicted-val-*")
    for i, name in enumerate(val.ids):
        wanted = segmenter(np.asarray(val.photo(i)), labelled.labels(i))
        assert (np.asarray(Image.open(folder / f"{name}.png")) == wanted).all()
    score = report["scores"][-1]
    assert (score["stage"], score["labels"]) == (f"evaluate {NAME}", "predicted by the classifier")
    assert "--labels predicted --classifier " in "\n".join(describe_next_steps(recipe, report, tmp_path))

    watch = Heard()  # without them the classifier is no longer beside the network
    run_recipe(tiny(**SHORT), tmp_path, watch=watch)
    assert watch.ran == []
    assert not (tmp_path / "classifier.pt").exists()
