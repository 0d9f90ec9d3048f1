"""`camplug wsss init`: the recipe of a folder, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from commands import good, refused
from PIL import Image

from camplug.wsss.recipe import read_recipe
from camplug.wsss.recipe.report_summary import describe_next_steps


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in "abcd":
        Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "table.csv").write_text("image,labels\na,cat\nb,dog\nc,cat;dog\nd,\n")
    return tmp_path


def test_labels_may_lie_elsewhere(place):
    found = json.loads(good("wsss", "init", "photos", "table.csv", "--no-probe", "--device", "cpu", "--json").stdout)
    assert found["data"]["classes"] == {"cat": 2, "dog": 2}
    assert (found["data"]["unlabelled"], found["long_side"], found["seconds"]) == (1, 128, None)
    assert found["next"] == "camplug wsss run recipe.yaml"
    recipe = read_recipe("recipe.yaml")
    data = recipe.data["train"].open()
    assert [data.labels(i) for i in range(4)] == [(0,), (1,), (0, 1), ()]
    assert recipe.data["train"].data == f"folder:{place / 'photos'}"  # runs from any folder


def test_the_table_of_the_folder_and_the_next_command(place):
    (place / "table.csv").rename(place / "photos" / "labels.csv")
    shown = good("wsss", "init", "photos", "--no-probe", "--out", "my own.yaml").stdout
    assert "4 images of about 64x48, 2 classes, without masks\n  cat: 2\n  dog: 2\n  without a class: 1\n" in shown
    assert shown.endswith("next: camplug wsss run 'my own.yaml'\n")
    assert yaml.safe_load((place / "my own.yaml").read_text())["evaluate"]["products_on"] == ["train"]
    assert "exists; give another file" in refused("wsss", "init", "photos", "--no-probe", "--out", "my own.yaml")


def test_refusals(place):
    assert "there is no file 'no.csv'" in refused("wsss", "init", "photos", "no.csv", "--no-probe")
    assert "without image labels" in refused("wsss", "init", "photos:photos", "--no-probe")
    says = refused("wsss", "init", "photos", "--no-probe")
    assert "without image labels, and a training needs them: write a labels.csv with the lines image,labels" in says
    assert "a recipe is written as .yaml" in refused("wsss", "init", "photos", "table.csv", "--out", "a.toml")
    assert "has no masks" in refused("wsss", "init", "photos", "table.csv", "--no-probe", "--val", "photos:photos")


def test_voc_is_scored_on_its_split_val(place):
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (place / "VOC2012" / folder).mkdir(parents=True)
    for split in ("train", "val"):
        (place / "VOC2012/ImageSets/Segmentation" / f"{split}.txt").write_text(f"{split}1\n")
        Image.new("RGB", (64, 48)).save(place / "VOC2012/JPEGImages" / f"{split}1.jpg")
        Image.new("P", (64, 48)).save(place / "VOC2012/SegmentationClass" / f"{split}1.png")
    says = refused("wsss", "init", "photos", "table.csv", "--no-probe", "--val", "voc:VOC2012")
    assert "--val has other classes than the data to train on ('aeroplane' is in one of them only)" in says
    (place / "names.txt").write_text("dog\ncat\n")
    good("wsss", "init", "photos", "table.csv", "--no-probe", "--val", "voc:VOC2012?classes=names.txt")
    val = read_recipe("recipe.yaml").data["val"]
    assert val.open().ids == ("val1",)
    assert val.options == {"classes": str(place / "names.txt")}  # runs from any folder
    (place / "VOC2012/ImageSets/Segmentation/val.txt").unlink()  # the only list is what there is to score on
    good("wsss", "init", "photos", "table.csv", "--no-probe", "--val", "voc:VOC2012?classes=names.txt", "--overwrite")
    assert read_recipe("recipe.yaml").data["val"].open().ids == ("train1",)


def test_what_comes_after_a_run(place):
    good("wsss", "init", "photos", "table.csv", "--no-probe")
    recipe = read_recipe("recipe.yaml")
    lines = describe_next_steps(recipe, {"scores": [], "network": "network.pt"}, place / "run")
    assert lines[0].startswith("no masks: nothing was scored.")
    assert f"camplug segment PHOTOS --weights {place}/run/network.pt --long-side 128" in lines[2]
    assert describe_next_steps(recipe, {"scores": [{}], "network": None}, place) == []
