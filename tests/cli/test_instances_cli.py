"""`camplug instances`: the library's masks, COCO files of all images, resumed, refused, and listed where it fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import heads
import numpy as np
import pytest
import torch
from commands import good, refused, run
from heads import photos, random_seeds
from label_commands import MODEL, MODULE, SCENES

from camplug.wsss.data import COCO
from camplug.wsss.irn import IRN, IRNHeadSettings
from camplug.wsss.irn.checkpoint import load_irn, save_irn
from camplug.wsss.pseudo import ImageInstances, InstanceFolder, IRNWalk
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.train import Backbone

pytest.importorskip("pycocotools")
PLAIN = ("instances", "seeds", "--data", "scenes:6", "--weights", "irn.pt", "--steps", "4", "--threshold", "0.4")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Seeds and heads, made once."""
    place = tmp_path_factory.mktemp("kept")
    random_seeds(place / "seeds", SCENES)
    torch.manual_seed(1)
    made_with = {"model": MODEL, "checkpoint": None, "num_classes": None}
    save_irn(place / "irn.pt", IRN(Backbone(heads.tiny()), IRNHeadSettings(width=16)), made_with)
    save_irn(place / "flat.pt", IRN(Backbone(heads.tiny()), IRNHeadSettings(width=0)), made_with)
    return place


@pytest.fixture(autouse=True)
def place(kept, tmp_path, monkeypatch):
    """A working folder with seeds, heads and a module of models."""
    (tmp_path / f"{MODULE}.py").write_text(Path(heads.__file__).read_text())
    for name in ("seeds", "irn.pt", "flat.pt"):
        (tmp_path / name).symlink_to(kept / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CAMPLUG_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    sys.modules.pop(MODULE, None)


def texts(folder):
    """The JSON files of a folder by name."""
    return {p.name: p.read_text() for p in folder.rglob("*.json")}


def test_masks_are_those_of_the_walk(place):
    shown = good(*PLAIN, "--power", "1.5", "--clear", "0.5", "--smallest", "0.002", "-o", "a").stdout
    assert "walk irn: 4 steps" in shown
    assert "threshold 0.4, given\na: 6 images made, 0 were there" in shown
    walk = IRNWalk(load_irn("irn.pt", heads.tiny()), 0.4, steps=4, power=1.5, clear=0.5)
    total = 0
    for i, name in enumerate(SCENES.ids):
        seed, read = SeedFolder("seeds").load(name), InstanceFolder("a").load(name)
        wanted = walk.find_instances(np.asarray(SCENES.photo(i)), seed.to_full_size(), smallest=0.002)
        assert isinstance(read, ImageInstances)
        assert read.size == seed.size
        assert [(one.class_index, one.score) for one in read.instances] == [
            (seed.classes[one.class_index], one.score) for one in wanted
        ]
        assert all(np.array_equal(a.mask, b.mask) for a, b in zip(read.instances, wanted, strict=True))
        total += len(wanted)
    assert total > 6
    document, results = (json.loads((place / "a" / name).read_text()) for name in ("instances.json", "results.json"))
    assert len(document["annotations"]) == len(results) == total
    assert [one["name"] for one in document["categories"]] == list(SCENES.classes)
    assert {one["image_id"] for one in results} <= {1, 2, 3, 4, 5, 6}
    settings = InstanceFolder("a").read_settings()
    assert (settings["holds"], settings["threshold"], settings["smallest"]) == ("instances", 0.4, 0.002)
    assert settings["walk"]["kind"] == "irn"
    assert "'a' holds instances; give a folder of seeds or of label pictures." in refused(
        "evaluate", "a", "--data", "scenes:6"
    )


def test_goes_on_and_is_refused_for_other_settings(place):
    good(*PLAIN, "-o", "a")
    whole, folder = texts(place / "a"), InstanceFolder("a")
    before = folder.get_path(SCENES.ids[0]).stat().st_mtime_ns
    folder.get_path(SCENES.ids[2]).unlink()
    told = json.loads(good(*PLAIN, "-o", "a", "--json").stdout)
    assert (told["made"], told["found"], told["broken"]) == (1, 5, [])
    assert texts(place / "a") == whole
    assert folder.get_path(SCENES.ids[0]).stat().st_mtime_ns == before
    assert "'a' holds instances of other settings: smallest differs (smallest: 0.01 there, 0.2 now)" in refused(
        *PLAIN, "-o", "a", "--smallest", "0.2"
    )
    assert "threshold differs" in refused(*PLAIN[:-1], "0.3", "-o", "a")
    good(*PLAIN, "-o", "a", "--smallest", "0.2", "--overwrite")
    assert InstanceFolder("a").read_settings()["smallest"] == 0.2


def test_two_shares_are_one_result(place, monkeypatch):
    good(*PLAIN, "-o", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        good(*PLAIN, "-o", "two")
    assert texts(place / "one") == texts(place / "two")


def test_a_long_side_keeps_the_photographs_size(place):
    good(*PLAIN, "--long-side", "40", "-o", "a")
    masks = [one.mask for name in SCENES.ids for one in InstanceFolder("a").load(name).instances]
    assert masks
    assert {mask.shape for mask in masks} == {(SCENES.photo(0).height, SCENES.photo(0).width)}


def test_broken_images_are_listed_and_left_out(place):
    data = photos(place / "mine", {"a.png": ["dog"], "b.png": ["cat"], "c.png": ["cat"]}, (64, 48))
    random_seeds(place / "own", data)
    own = ("instances", "own", "--data", "mine", *PLAIN[4:], "-o", "a")
    good(*own)
    document = json.loads((place / "a" / "instances.json").read_text())
    assert [one["file_name"] for one in document["images"]] == ["a.png", "b.png", "c.png"]
    (place / "own" / "b.npz").unlink()
    result = run(*own)
    assert result.exit_code == 1
    assert "skipped: there is no seed 'own/b.npz'" in result.stderr
    document = json.loads((place / "a" / "instances.json").read_text())
    assert [one["id"] for one in document["images"]] == [1, 3]  # not with masks of a seed that is gone


def test_numbers_are_those_of_coco(place):
    (place / "set").mkdir()
    photos(place / "set", {"x.png": ["cat"]}, (64, 48))
    content = {
        "images": [{"id": 77, "file_name": "x.png", "width": 64, "height": 48}],
        "categories": [{"id": 5, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 77, "category_id": 18, "segmentation": [[0, 0, 9, 0, 9, 9]], "iscrowd": 0}
        ],
    }
    (place / "set" / "instances_val2014.json").write_text(json.dumps(content))
    data = COCO(place / "set", annotations="instances_val2014.json", photos="images")
    assert (data.image_numbers, data.class_numbers) == ((77,), (5, 18))
    random_seeds(place / "own", data)
    name = f"coco:{place / 'set'}?annotations=instances_val2014.json&photos=images"
    good("instances", "own", "--data", name, *PLAIN[4:], "--smallest", "0", "-o", "a")
    results = json.loads((place / "a" / "results.json").read_text())
    assert results
    assert {(one["image_id"], one["category_id"]) for one in results} == {(77, 18)}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--weights", "flat.pt"), "this IRN has no displacements, which tell objects apart; train one with a width"),
        (("--weights", "none.pt"), "there is no file 'none.pt'; `camplug train` makes it."),
        (("--smallest", "1"), "smallest=1.0; give a number from 0 to below 1."),
        (("--threshold", "1"), "a threshold of 1 is not possible"),
        (("--long-side", "0"), "long_side=0; give at least 1 pixel."),
        (("--beta", "0"), "beta=0; give a number above 0"),
    ],
)
def test_bad_input(place, options, says):
    assert says in refused(*PLAIN, *options)
    assert not (place / "instances").exists() or not texts(place / "instances")


def test_what_is_missing(place, monkeypatch):
    assert "--weights is missing; `camplug train irn` makes them." in refused(*PLAIN[:4])
    assert "the folder of seeds is missing" in refused("instances", *PLAIN[2:])
    for name in [n for n in sys.modules if n.split(".")[0] == "pycocotools"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert refused(*PLAIN).endswith('COCO\'s masks need pycocotools: pip install "camplug[coco]".')
