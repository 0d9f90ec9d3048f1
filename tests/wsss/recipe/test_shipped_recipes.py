"""The recipes that come with camplug: the papers' settings, planned at full size and run at a small one."""

from __future__ import annotations

import json
from importlib import resources

import pytest
import yaml
from commands import good, refused
from recipes import SMALL, voc_tree
from rich.console import Console

from camplug.cli import common
from camplug.cli.wsss import _show_plan
from camplug.wsss.recipe import list_recipes, plan_recipe, read_recipe
from camplug.wsss.recipe.plan import Row

PAPERS = ("fully_cam_irn", "class_conditional_affinitynet", "atm_fum", "rpnet_irn", "fpr_irn")


def test_all_are_there():
    assert set(list_recipes()) == {*PAPERS, "coco14_fully_cam_irn", "voc12_animals", "scenes"}
    assert all(list_recipes().values())


@pytest.mark.parametrize("name", sorted(list_recipes()))
def test_it_is_planned_without_its_data(name, tmp_path, monkeypatch):
    for variable in ("CAMPLUG_VOC", "CAMPLUG_COCO"):
        monkeypatch.delenv(variable, raising=False)
    rows = {row.stage: row for row in plan_recipe(read_recipe(name), tmp_path, probe=False)}
    assert all(row.images for row in rows.values())
    counts = {"coco14_fully_cam_irn": (82783, 40137), "voc12_animals": (3131, 222), "scenes": (600, 60)}
    train, val = counts.get(name, (10582, 1449))
    assert (rows["seeds train"].images, rows["predictions val"].images) == (train, val)
    assert rows["predictions crf val"].state == "to run"


def test_the_papers_settings():
    fully, psa, atm, rpnet, fpr = (read_recipe(name) for name in PAPERS)
    assert fully.seeds.explainer == "MultiView(FullyCAM, scales=(0.5, 1, 1.5, 2), flip=True)"
    assert (fully.deeplab.training.training.batch, fully.deeplab.training.training.epochs) == (24, 50)
    assert fully.deeplab.training.network.schedule.lr == 0.007
    assert (fully.refine.training.training.batch, fully.refine.training.training.epochs) == (24, 3)
    found = fully.refine.training.foreground, fully.refine.training.background, fully.pseudo_labels.threshold
    assert found == ("otsu", "otsu", "otsu")
    assert (rpnet.refine.training.foreground, rpnet.refine.training.background) == (0.3, 0.05)
    assert (psa.refine.training.low, psa.refine.training.high, psa.refine.walk.alpha) == (4, 32, 16)
    assert psa.deeplab.training.network.refinement == 0.08
    assert (atm.classifier.method.similarity, atm.classifier.method.background_similarity) == (0.5, 0.5)
    assert (rpnet.classifier.method.weight, rpnet.classifier.learning.schedule.lr) == (10, 0.02)
    assert rpnet.deeplab.training.network.head == "large-fov"
    method = fpr.classifier.method
    assert (method.theta, method.clusters, method.temperature) == (0.1, 10, 13)
    assert (method.region_contrast, method.pixel_rectification) == (0.12, 15e-5)
    assert (fpr.refine.walk.power, fpr.pseudo_labels.threshold) == (1.5, 0.2)
    assert fpr.classifier.start.learning.cut == 8
    for recipe in (fully, atm, rpnet, fpr):
        assert recipe.refine.walk.steps == 256
        assert recipe.pseudo_labels.crf is None


@pytest.mark.parametrize("name", sorted(list_recipes()))
def test_settings_say_where_they_come_from(name):
    text = (resources.files("camplug.wsss.recipe") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.count("#") >= 4
    assert max(map(len, text.splitlines())) <= 125


def small(name):
    """--set options that bring a paper's recipe to a tiny network and tiny crops."""
    raw = yaml.safe_load((resources.files("camplug.wsss.recipe") / "recipes" / f"{name}.yaml").read_text("utf-8"))
    sections = {key: dict(values) for key, values in SMALL.items()}
    if name == "rpnet_irn":
        sections["classifier.train"]["stages"] = "last,4"
    if name in ("atm_fum", "fpr_irn"):  # go on with a trained classifier
        train = sections["classifier.train"]
        sections["classifier.train.start.train"] = {**train}
        del train["model"], train["output_stride"]
    if "backbone" not in raw["refine"]:
        del sections["refine"]
    if raw["deeplab"]["head"] != "large-fov":
        del sections["deeplab"]["width"]
    found = []
    for section, values in sections.items():
        for key, value in values.items():
            text = yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("...").strip()
            found += ["--set", f"{section}.{key}={text}"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_papers_recipe_on_twenty_images(name, tmp_path):
    root = voc_tree(tmp_path)
    said = good("wsss", "run", name, "--data-root", root, "--out", tmp_path / "run", "--json", *small(name))
    report = json.loads(said.stdout)
    assert report["finished"]
    scores = {score["stage"]: score for score in report["scores"]}
    assert set(scores) == {
        "evaluate seeds train",
        "evaluate maps train",
        "evaluate labels train",
        "evaluate predictions val",
        "evaluate predictions crf val",
    }
    assert (scores["evaluate labels train"]["list"], scores["evaluate labels train"]["images_scored"]) == (
        "score_on",
        8,
    )
    assert scores["evaluate predictions val"]["images_scored"] == 6
    chosen = scores["evaluate labels train"]["threshold_chosen"]
    by_otsu = "Otsu's method on data.train (14 images), no mask used"
    assert chosen == (by_otsu if name == "fully_cam_irn" else "fixed, given by the recipe")
    assert scores["evaluate labels train"]["averaged_over"] == ["background", "cat", "dog", "person"]
    assert len(report["pictures"]) == 2
    assert [p["title"] for p in report["pictures"][0]["panels"]] == [
        "photo",
        "seeds",
        "refined maps",
        "pseudo-labels",
        "prediction",
        "truth",
    ]


def test_the_command_lists_them():
    found = json.loads(good("wsss", "recipes", "--json").stdout)
    assert set(found["recipes"]) == set(list_recipes())
    assert "fully_cam_irn" in good("wsss", "recipes").stdout


def test_the_command_plans(tmp_path):
    plan = json.loads(good("wsss", "demo", "--dry-run", "--out", tmp_path, "--json").stdout)
    assert plan["stages"][0]["stage"] == "classifier"
    assert plan["total_seconds"] > 0
    text = good("wsss", "run", "coco14_fully_cam_irn", "--dry-run", "--no-probe", "--out", tmp_path).stdout
    assert "82,783" in text
    assert "data.train is not on disk" in text


def test_the_plan_has_its_notes_on_a_narrow_console(capsys, monkeypatch):
    monkeypatch.setattr(common, "out", Console(width=80))
    name = "evaluate predictions crf val"
    _show_plan([Row(name, "to run", 10582, 50, 1e6, 1e9, 3.5e9, ["one", "two"])], probe=True)
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert " ".join(row[0].strip() for row in rows) == name
    assert [cell.strip() for cell in rows[0][1:]] == ["to run", "10,582 x 50", "277.8 h", "1.0 GB", "3.5 GB", "1 2"]


def test_the_command_refuses(tmp_path, monkeypatch):
    monkeypatch.delenv("CAMPLUG_VOC", raising=False)
    out = ["--out", tmp_path]
    assert "names ${CAMPLUG_VOC}, which is not set" in refused("wsss", "run", "fully_cam_irn", *out)
    assert "did you mean 'explainer'?" in refused("wsss", "demo", *out, "--set", "seeds.explaner=CAM")
    assert "there is no recipe 'fuly'" in refused("wsss", "run", "fuly", *out)
    assert f"`camplug wsss init {tmp_path}` writes one" in refused("wsss", "run", f"folder:{tmp_path}", *out)
    given = ["--set", f"data.train.data=folder:{tmp_path}", "--dry-run", "--no-probe"]
    assert "data.train: a folder has no splits, got 'train_aug'" in refused(
        "wsss", "run", "fully_cam_irn", *out, *given
    )
    said = refused("wsss", "run", "fully_cam_irn", *out, "--data-root", tmp_path)
    assert said.startswith("error: data.train: ")
