"""Dry runs: what would be run, and what it is estimated to cost."""

from __future__ import annotations

import pytest
from PIL import Image
from recipes import NET, SCENES, Heard, tiny

from camplug.wsss.data import Scenes
from camplug.wsss.recipe import make_recipe, plan_recipe, run_recipe
from camplug.wsss.recipe.estimate import Cost
from camplug.wsss.recipe.placeholder_data import SyntheticImages, draw_clouds
from camplug.wsss.recipe.plan import CostEstimator


def test_without_a_probe_nothing_is_estimated(tmp_path):
    rows = plan_recipe(tiny(), tmp_path, probe=False)
    assert [row.stage for row in rows][:3] == ["classifier", "seeds train", "seeds val"]
    assert [row.images for row in rows][:5] == [8, 8, 4, 4, 8]
    assert {row.state for row in rows} == {"to run"}
    assert all(row.seconds is None and row.bytes is None and row.memory is None for row in rows)
    assert {row.stage: row.epochs for row in rows if row.epochs} == {"classifier": 2, "affinities": 1, "deeplab": 2}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_probe_estimates_every_stage_and_knows_what_is_made(tmp_path):
    rows = plan_recipe(tiny(), tmp_path)
    assert all(row.seconds > 0 and row.memory > 0 for row in rows), rows
    assert all(row.bytes > 0 for row in rows if not row.stage.startswith(("evaluate", "choose", "cut")))
    assert not any("not measured" in note for row in rows for note in row.notes)
    first = tiny(deeplab=None, refine=None, pseudo_labels={"threshold": 0.3}, evaluate={"products_on": ["train"]})
    run_recipe(first, tmp_path)
    rows = plan_recipe(tiny(), tmp_path, probe=False)
    assert [row.stage for row in rows if row.state == "made before"] == ["classifier", "seeds train"]


def test_costs_are_scaled_to_all_images(tmp_path, monkeypatch):
    cost = Cost(seconds=2.0, fixed=3.0, bytes=10.0, files=5.0, memory=7.0, scaled=["the disk"])
    monkeypatch.setattr(CostEstimator, "estimate", lambda self, stage, sample: cost)
    sections = dict(tiny().text)
    missing = {"data": "coco:${NOWHERE}", "split": "train2014", "images": 82783}
    sections["data"] = {"train": missing, "threshold": {**missing, "images": 100}}
    sections["evaluate"] = {}
    rows = {row.stage: row for row in plan_recipe(make_recipe(sections), tmp_path)}
    seeds, deeplab = rows["seeds train"], rows["deeplab"]
    assert (seeds.images, seeds.seconds, seeds.bytes, seeds.memory) == (82783, 82783 * 5.0, 827835.0, 7.0)
    assert (deeplab.seconds, deeplab.bytes) == (82783 * (2 * 2.0 + 3.0), 827835.0)  # two epochs
    assert seeds.notes == ["data.train is not on disk", "the disk", "measured on pictures of 640x480"]
    assert (rows["predictions pictures"].images, rows["cut seeds"].images) == (10, 2000)


def test_what_cannot_be_measured_is_told(tmp_path):
    sections = dict(tiny().text)
    sections["classifier"] = {"given": {"model": "timm:no_such_net"}}
    rows = {row.stage: row for row in plan_recipe(make_recipe(sections), tmp_path)}
    assert rows["seeds train"].seconds is None
    assert "timm has no model 'no_such_net'" in rows["seeds train"].notes[0]
    assert rows["labels train"].seconds > 0


def test_synthetic_images():
    data = SyntheticImages((30, 44), classes=5, shown=2.9)
    assert data.labels(0) == (0, 1, 2)
    assert data.photo(1).size == (44, 30)
    plane = draw_clouds((30, 44), 0)
    assert plane.shape == (30, 44)
    assert 0 <= plane.min() < plane.max() <= 1
    assert abs(plane[:, 1:] - plane[:, :-1]).max() < 0.2  # smooth


def test_the_size_of_a_seed_is_measured(tmp_path):
    sections = dict(tiny().text)
    sections["classifier"] = {"given": {"model": NET}}
    sections["refine"], sections["pseudo_labels"], sections["deeplab"] = {}, {"threshold": 0.3}, None
    sections["data"] = {"train": {"data": "scenes:8:0", "options": SCENES}}
    sections["evaluate"] = {}
    rows = {row.stage: row for row in plan_recipe(make_recipe(sections), tmp_path)}
    assert "not measured" in rows["seeds train"].notes[0]  # a network without a head explains nothing


def test_images_with_corrected_labels_are_drawn_more_often(tmp_path, monkeypatch):
    monkeypatch.setattr(CostEstimator, "estimate", lambda self, stage, sample: Cost(seconds=2.0, fixed=3.0))
    data = Scenes(8, **SCENES)
    for name in (data.ids[2], data.ids[5], "of another list"):
        Image.new("P", (64, 48)).save(tmp_path / f"{name}.png")
    recipe = tiny(deeplab={"corrected": str(tmp_path), "corrected_repeat": 5, "epochs": 3})
    (deeplab,) = [row for row in plan_recipe(recipe, tmp_path / "run") if row.stage == "deeplab"]
    assert deeplab.seconds == (8 + 2 * 4) * 2.0 * 3 + 8 * 3.0


def test_what_is_left_of_a_stage_that_was_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(CostEstimator, "estimate", lambda self, stage, sample: Cost(seconds=2.0))
    with pytest.raises(KeyboardInterrupt):
        run_recipe(tiny(), tmp_path, watch=Heard(stop="training", step=1))
    (spent,) = tmp_path.glob("cache/classifier-*/spent.json")
    spent.write_text("7.5")
    classifier, seeds = plan_recipe(tiny(), tmp_path)[:2]
    assert (classifier.state, classifier.seconds) == ("begun", 8 * 2 * 2.0 - 7.5)
    assert (seeds.state, seeds.seconds) == ("to run", 8 * 2.0)
