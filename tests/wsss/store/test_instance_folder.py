"""Stored masks are read as they were, and COCO files hold what pycocotools makes of them."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from camplug.errors import InputError
from camplug.wsss.data import Scenes
from camplug.wsss.data.coco import fill_outline
from camplug.wsss.data.run_lengths import decode_run_lengths, encode_mask
from camplug.wsss.irn.instances import Instance
from camplug.wsss.store.instance_folder import ImageInstances, InstanceFolder

pytest.importorskip("pycocotools")
DATA = Scenes(2, classes=2)


def mask_of(*places):
    mask = np.zeros((4, 6), bool)
    for place in places:
        mask[place] = True
    return mask


LEFT, RIGHT = mask_of((0, 0), (1, 0), (1, 1)), mask_of((3, 5))


@pytest.fixture
def folder(tmp_path):
    found = InstanceFolder(tmp_path / "out")
    found.prepare({"classes": list(DATA.classes)})
    found.save(DATA.ids[0], ImageInstances((Instance(1, LEFT, 0.75), Instance(0, RIGHT, 0.5)), (4, 6)), {"seed": "a"})
    found.save(DATA.ids[1], ImageInstances((), (4, 6)), {"seed": "b"})
    return found


def test_run_lengths_by_hand():
    """Column by column: 2 inside, 3 outside (the rest of column 0, the top of column 1), 1 inside, 18 outside."""
    assert decode_run_lengths(encode_mask(LEFT)["counts"]) == [0, 2, 3, 1, 18]
    assert encode_mask(LEFT)["size"] == [4, 6]
    assert fill_outline({"size": [4, 6], "counts": [0, 2, 3, 1, 18]}, 4, 6).tolist() == LEFT.tolist()
    assert fill_outline(encode_mask(LEFT), 4, 6).tolist() == LEFT.tolist()


def test_what_is_stored_is_read(folder):
    read = folder.load(DATA.ids[0])
    assert read.size == (4, 6)
    assert [(one.class_index, one.score) for one in read.instances] == [(1, 0.75), (0, 0.5)]
    assert np.array_equal(read.instances[0].mask, LEFT)
    assert np.array_equal(read.instances[1].mask, RIGHT)
    assert folder.load(DATA.ids[1]).instances == ()
    assert folder.read_settings()["holds"] == "instances"
    assert folder.has_result(DATA.ids[0], {"seed": "a"})
    assert not folder.has_result(DATA.ids[0], {"seed": "b"})


def test_coco_files(folder):
    folder.write_coco_files(DATA, [0, 1])
    document = json.loads((folder.path / "instances.json").read_text())
    assert document["images"] == [
        {"id": 1, "file_name": DATA.ids[0], "height": 4, "width": 6},
        {"id": 2, "file_name": DATA.ids[1], "height": 4, "width": 6},
    ]
    assert document["categories"] == [{"id": 1, "name": DATA.classes[0]}, {"id": 2, "name": DATA.classes[1]}]
    first, second = document["annotations"]
    assert {key: first[key] for key in ("id", "image_id", "category_id", "iscrowd", "area", "score")} == {
        "id": 1,
        "image_id": 1,
        "category_id": 2,
        "iscrowd": 0,
        "area": 3,
        "score": 0.75,
    }
    assert (first["bbox"], second["bbox"]) == ([0, 0, 2, 2], [5, 3, 1, 1])  # x, y, width, height
    results = json.loads((folder.path / "results.json").read_text())
    assert [list(one) for one in results] == [["image_id", "category_id", "segmentation", "score"]] * 2
    assert np.array_equal(fill_outline(results[0]["segmentation"], 4, 6), LEFT)


def test_the_official_tools_find_them_right(folder, capsys):
    """As truth and as results the same instances: an average precision of 1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    folder.write_coco_files(DATA, [0, 1])
    truth = COCO(str(folder.path / "instances.json"))
    figures = COCOeval(truth, truth.loadRes(str(folder.path / "results.json")), "segm")
    figures.evaluate()
    figures.accumulate()
    figures.summarize()
    assert figures.stats[0] == pytest.approx(1)


def test_damaged_and_missing_files(folder):
    folder.get_path(DATA.ids[0]).write_text("{")
    assert not folder.is_whole(DATA.ids[0])
    with pytest.raises(InputError, match="are damaged or cannot be read"):
        folder.load(DATA.ids[0])
    with pytest.raises(InputError, match="there are no instances"):
        folder.load("another")


def test_without_pycocotools(folder, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "pycocotools"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match=r'need pycocotools: pip install "camplug\[coco\]"\.$'):
        encode_mask(LEFT)
