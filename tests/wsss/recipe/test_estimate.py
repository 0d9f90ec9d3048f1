"""Estimates of costs: what is run on the sample, at which size, and how it is scaled."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from recipes import TINY, tiny

from camplug.wsss.data import Scenes
from camplug.wsss.recipe import Stage, estimate, list_stages, make_recipe, plan_recipe
from camplug.wsss.recipe.estimate import HALF, estimate_images, estimate_training, halve_long_side
from camplug.wsss.recipe.placeholder_data import SampleImages, SyntheticImages
from camplug.wsss.recipe.sample import Sample
from camplug.wsss.recipe.stages import get_stage
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.store.jobs import Report

DATA = Scenes(3, (48, 64), classes=3)
STAGE = Stage("labels train", "labels", {"long_side": 100}, part="train")


def stages(recipe):
    return {stage.name: stage for stage in list_stages(recipe, {n: p.open() for n, p in recipe.data.items()})}


def estimate_sizes(**options):
    """Estimate a stage that notes the sizes of its images and of its setting."""
    seen = []

    def prepare(stage, context):
        photo = context.view(stage).photo(0)
        seen.append((photo.height, photo.width, stage.settings["long_side"]))
        return lambda: Report(made=1, bytes=photo.height * photo.width)

    return seen, estimate_images(STAGE, Sample(DATA), prepare, **options)


def test_images_are_run_at_half_the_side_and_at_the_whole():
    seen, cost = estimate_sizes()
    assert seen == [(24, 32, 50), (48, 64, 100)]
    assert (cost.bytes, cost.scaled) == (48 * 64, [])
    seen, _ = estimate_sizes(resizes=True)
    assert seen == [(48, 64, 100)]
    assert halve_long_side(STAGE).settings == {"long_side": 50}


def test_what_takes_long_is_scaled_from_half_the_side(monkeypatch):
    monkeypatch.setattr(estimate, "LONG", -1.0)
    seen, cost = estimate_sizes()
    assert seen == [(24, 32, 50)]
    assert (cost.bytes, cost.scaled) == (48 * 64, [HALF])


def test_a_broken_sample_is_told():
    def prepare(stage, context):
        return lambda: Report(broken=[("a", "the photograph is damaged.")])

    with pytest.raises(RuntimeError, match="the photograph is damaged"):
        estimate_images(STAGE, Sample(DATA), prepare)


@pytest.mark.parametrize(("long", "sides", "factor"), [(9.0, [64, 128], 1), (-1.0, [64], 4)])
def test_trainings_run_a_step_with_few_images(monkeypatch, long, sides, factor):
    monkeypatch.setattr(estimate, "LONG", long)
    found, seen = {"seconds": 3.0, "base": 100.0, "grown": 10.0}, []
    weight = torch.ones(1, requires_grad=True)

    class Measured:
        def __enter__(self):
            return found

        def __exit__(self, *error):
            assert weight.grad is not None  # the loss is propagated back inside

    monkeypatch.setattr(estimate, "measure", lambda device: Measured())

    def prepare(context, crop, count):
        seen.append((crop, count))
        return lambda: 2 * weight

    cost = estimate_training(Sample(DATA), prepare, crop=128, batch=8, count=2)
    assert seen == [(side, 2) for side in sides]
    assert cost.seconds == factor * 3 / 2  # of an image
    assert cost.memory == 100 + factor * 10 * 8 / 2
    assert "memory and time from 2 images to a batch of 8" in cost.scaled
    assert (HALF in cost.scaled) == (factor > 1)


def test_the_sample_has_placeholders_of_all_inputs():
    recipe = tiny()
    found = stages(recipe)
    sample = Sample(recipe.data["train"].open())
    with sample.open_context() as context:
        images = context.view(found["evaluate maps train"])
        seed = SeedFolder(context.get_input(found["maps train"], "seeds")).load(images.ids[0])
        assert seed.size == (48, 64) == images.mask(0).shape
        assert seed.classes == images.labels(0)
        assert seed.maps.max() > 200
        assert set(np.unique(images.mask(0))) == {0, images.labels(0)[0] + 1}
        walked = context.run(found["maps train"])
        assert (walked["made"], walked["broken"]) == (1, [])
        assert context.run(found["predictions val"])["made"] == 1
        folder = context.cache.root
    assert not folder.exists()
    with sample.open_context() as context:
        done = context.run(found["evaluate maps train"])
        assert (done["images"], done["figures"]["threshold"]) == (1, 0.3)


def test_no_weights_are_read():
    sections = copy.deepcopy({**TINY, "classifier": {"given": {"model": "timm:resnet18", "checkpoint": "none.pt"}}})
    seeds = stages(make_recipe(sections))["seeds train"]
    cost = get_stage("seeds").estimate(seeds, Sample(DATA))  # 1000 classes, and none.pt is not there
    assert cost.seconds > 0
    assert cost.bytes > 0


def test_images_that_stand_for_others():
    one = SampleImages(SyntheticImages((30, 44), classes=5, shown=2), (15, 22), 2, classes=3)
    assert (one.classes, one.labels(0), one.photo(0).size) == (("class 0", "class 1", "class 2"), (0, 1), (22, 15))
    same = SampleImages(DATA, (48, 64), 9)
    assert same.classes == DATA.classes
    assert same.labels(0) == (0, 1, 2)  # as many as there are
    assert (np.asarray(same.photo(0)) == np.asarray(DATA.photo(0))).all()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("kind", ["affinitynet", "crf"])
def test_other_refinements_are_estimated(tmp_path, kind):
    refine = {"kind": kind} | ({"training": {"crop": 32, "batch": 4}} if kind == "affinitynet" else {})
    sections = {**copy.deepcopy(TINY), "refine": refine, "deeplab": None}
    sections["pseudo_labels"] = {"threshold": 0.3, "long_side": 32}
    rows = {row.stage: row for row in plan_recipe(make_recipe(sections), tmp_path)}
    assert not [note for row in rows.values() for note in row.notes if "not measured" in note]
    assert all(row.seconds > 0 for row in rows.values())
    assert ("affinities" in rows) == (kind == "affinitynet")


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("method", ["atm", "rpnet", "fpr"])
def test_other_classifiers_are_estimated(method):
    sections = copy.deepcopy(TINY)
    train = sections["classifier"]["train"]
    if method == "fpr":
        sections["classifier"] = {"train": {"method": "fpr", "crop": 48, "start": {"train": train}}}
    else:
        train |= {"method": method} | ({"stages": "last,4"} if method == "rpnet" else {})
    stage = stages(make_recipe(sections))["classifier"]
    cost = get_stage("classifier").estimate(stage, Sample(DATA))
    assert cost.seconds > 0
    assert cost.files > 0
    assert ("the pass for prototypes from the step" in cost.scaled) == (method == "fpr")
