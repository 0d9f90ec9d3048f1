"""What a command line can say for a data set, and what it is told when nothing is recognised."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import COCO, VOC, Folder, Scenes, SegmentationData, open_data


def voc(root):
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for split in ("train", "val"):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(f"{split}1\n", encoding="utf-8")


def coco(root):
    (root / "annotations").mkdir(parents=True)
    (root / "train2014").mkdir()
    content = {
        "images": [{"id": 1, "file_name": "x.jpg", "width": 3, "height": 3}],
        "annotations": [],
        "categories": [{"id": 1, "name": "person"}],
    }
    (root / "annotations/instances_train2014.json").write_text(json.dumps(content), encoding="utf-8")


def folder(root):
    root.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(root / "a.png")
    (root / "labels.csv").write_text("image,labels\na.png,cat\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "prefix", "kind", "ids"),
    [(voc, "voc", VOC, ("train1",)), (coco, "coco", COCO, ("x",)), (folder, "folder", Folder, ("a",))],
)
def test_by_name_and_by_what_is_there(tmp_path, make, prefix, kind, ids):
    if kind is COCO:
        pytest.importorskip("pycocotools")
    root = tmp_path / "data"
    make(root)
    for text in (f"{prefix}:{root}", str(root), root):
        data = open_data(text)
        assert type(data) is kind
        assert isinstance(data, SegmentationData)
        assert data.ids == ids


def test_split(tmp_path):
    voc(tmp_path / "VOCdevkit/VOC2012")
    assert open_data(tmp_path, "val").ids == ("val1",)
    assert not open_data(tmp_path).has_masks  # there is no SegmentationClass
    with pytest.raises(InputError, match="no split 'test'"):
        open_data(f"voc:{tmp_path}", "test")
    folder(tmp_path / "own")
    with pytest.raises(InputError, match="a folder has no splits, got 'val'"):
        open_data(tmp_path / "own", "val")
    with pytest.raises(InputError, match="scenes has no splits"):
        open_data("scenes:5", "train")


def test_scenes():
    data = open_data("scenes:5")
    assert type(data) is Scenes
    assert (len(data), data.seed) == (5, 0)
    assert open_data("scenes:5:7").seed == 7
    for text in ("scenes:", "scenes:five", "scenes:5:", "scenes:5:1:2", "scenes:-5"):
        with pytest.raises(InputError, match="write scenes:COUNT or scenes:COUNT:SEED"):
            open_data(text)
    with pytest.raises(InputError, match="count=0"):
        open_data("scenes:0")


def test_nothing_recognised(tmp_path):
    with pytest.raises(InputError, match=r"looked for JPEGImages/ \(VOC\), annotations/instances_\*\.json, "):
        open_data(tmp_path)
    with pytest.raises(InputError, match="is missing; give the data set's folder"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no kind of data set; the kinds are voc, coco, folder, photos, scenes"):
        open_data("vocc:somewhere")
    voc(tmp_path / "both")
    (tmp_path / "both/labels.csv").write_text("image,labels\n", encoding="utf-8")
    with pytest.raises(InputError, match="could be voc or folder; say which"):
        open_data(tmp_path / "both")


def test_a_colon_in_a_path_that_exists(tmp_path, monkeypatch):
    folder(tmp_path / "a:b")
    monkeypatch.chdir(tmp_path)
    assert open_data("a:b").ids == ("a",)
