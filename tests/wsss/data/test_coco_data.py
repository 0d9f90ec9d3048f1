"""COCO's layout: classes in order of the ids, masks painted in file order, crowds left out, broken entries told."""

from __future__ import annotations

import builtins
import copy
import json
import sys

import numpy as np
import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import COCO, open_data
from camplug.wsss.data.run_lengths import decode_run_lengths

H, W = 10, 12


def box(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def shape(number, image, category, segmentation, crowd=0):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": crowd,
        "bbox": [0, 0, 1, 1],
        "area": 1,
    }


CONTENT = {
    "images": [{"id": n, "file_name": f"COCO_val2014_{n:012d}.jpg", "height": H, "width": W} for n in (42, 9, 7)],
    # ids with gaps, not in order
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}],
    "annotations": [
        shape(1, 42, 90, [box(1, 1, 7, 7)]),
        shape(2, 9, 13, [box(0, 0, 4, 4), box(6, 6, 10, 9)]),
        shape(3, 42, 1, [box(4, 4, 11, 9)]),  # over the first
        # a crowd over everything: the first 0 pixels outside, all others inside
        shape(4, 42, 13, {"size": [H, W], "counts": [0, H * W]}, crowd=1),
    ],
}


def write(root, content, split="val2014"):
    (root / "annotations").mkdir(exist_ok=True)
    (root / f"annotations/instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "val2014").mkdir()
    for entry in CONTENT["images"]:
        Image.new("RGB", (W, H), (10, 200, 30)).save(tmp_path / "val2014" / entry["file_name"])
    write(tmp_path, CONTENT)
    return tmp_path


def changed(root, change):
    content = copy.deepcopy(CONTENT)
    change(content)
    write(root, content)
    return COCO(root, "val2014")


def test_classes_ids_and_labels(root):
    data = COCO(root, "val2014", masks=False)
    assert data.classes == ("person", "stop sign", "toothbrush")
    assert data.ids == ("COCO_val2014_000000000042", "COCO_val2014_000000000009", "COCO_val2014_000000000007")
    assert [data.labels(i) for i in range(3)] == [(0, 2), (1,), ()]  # the crowd gives no label
    assert not data.has_masks
    assert data.photo(0).size == (W, H)
    with pytest.raises(InputError, match="masks=False"):
        data.mask(0)


def test_masks_are_painted_in_file_order(root):
    pytest.importorskip("pycocotools")
    data = COCO(root, "val2014")
    want = np.zeros((H, W), np.uint8)
    want[1:7, 1:7] = 3
    want[4:9, 4:11] = 1
    assert data.mask(0).tolist() == want.tolist()
    assert data.mask(0).dtype == np.uint8
    two = np.zeros((H, W), np.uint8)
    two[:4, :4] = two[6:9, 6:10] = 2
    assert data.mask(1).tolist() == two.tolist()
    assert not data.mask(2).any()

    turned = changed(root, lambda c: c["annotations"].reverse())
    want[1:7, 1:7] = 3
    assert turned.mask(0).tolist() == want.tolist()


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools itself
def test_masks_are_those_of_the_official_tools(root, capsys):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO as Official

    rng = np.random.default_rng(0)
    polygons = [[(rng.uniform(0, 12, 2 * n)).round(2).tolist()] for n in (3, 5, 8)]
    counts = [7, 30, 11, 40, 32]
    objects = [shape(n, 42, 1, p) for n, p in enumerate(polygons)]
    objects.append(shape(9, 42, 90, {"size": [H, W], "counts": counts}))
    data = changed(root, lambda c: c.update(annotations=copy.deepcopy(objects)))
    assert capsys.readouterr().out == ""
    official = Official(str(root / "annotations/instances_val2014.json"))
    want = np.zeros((H, W), np.uint8)
    for a in official.loadAnns(official.getAnnIds(imgIds=[42])):
        want[official.annToMask(a) == 1] = {1: 1, 90: 3}[a["category_id"]]
    assert data.mask(0).tolist() == want.tolist()
    assert (want == 3).sum() == 70
    assert (want == 1).any()


def test_compressed_run_lengths(root):
    coding = pytest.importorskip("pycocotools.mask")
    inside = np.zeros((H, W), np.uint8, order="F")
    inside[2:5, 3:9] = 1
    runs = coding.encode(inside)
    runs["counts"] = runs["counts"].decode()
    data = changed(root, lambda c: c.update(annotations=[shape(1, 42, 90, runs)]))
    assert data.mask(0).tolist() == (3 * inside).tolist()


def test_long_run_lengths():
    coding = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for size in ((300, 200), (1, 7), (64, 64)):
        inside = np.zeros(size, np.uint8, order="F")
        for _ in range(5):
            y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
            inside[y : y + rng.integers(1, 90), x : x + rng.integers(1, 60)] ^= 1
        runs = coding.encode(inside)
        flat = inside.T.ravel()
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
        assert decode_run_lengths(runs["counts"]) == np.diff([0, *edges, flat.size]).tolist()


def test_polygons_with_two_corners_are_empty_and_not_boxes(root):
    pytest.importorskip("pycocotools")
    data = changed(root, lambda c: c.update(annotations=[shape(1, 42, 90, [[1, 1, 7, 7]])]))
    assert not data.mask(0).any()
    assert data.labels(0) == (2,)


@pytest.mark.parametrize(
    ("segmentation", "word"),
    [
        ([[1, 1, 5, 1, 5, 5, 3]], "pairs"),
        ([[1, 1, float("nan"), 1, 5, 5]], "pairs"),
        ([[1, 1, 1e12, 1, 5, 5]], "pairs"),
        ([["a", "b"]], "cannot be painted"),
        ([], "neither"),
        (None, "neither"),
        ({"size": [H, W + 1], "counts": [0, H * W + H]}, "are for"),
        ({"size": [H, W], "counts": [0, 7]}, "add up to 7"),
        ({"size": [H, W], "counts": "52203"}, "add up to 16"),
        ({"size": [H, W], "counts": [-1, H * W + 1]}, "add up"),
        ({"size": [H, W], "counts": []}, "add up to 0"),
        ({"size": [H, W]}, "cannot be painted"),
    ],
)
def test_a_broken_segmentation_is_told_with_its_annotation(root, segmentation, word):
    pytest.importorskip("pycocotools")
    data = changed(root, lambda c: c["annotations"].append(shape(77, 9, 1, segmentation)))
    assert data.mask(0).any()
    assert data.labels(1) == (0, 1)
    with pytest.raises(InputError, match=rf"000009': .*annotation 77 .*{word}"):
        data.mask(1)


def test_a_category_that_is_not_listed_is_told_with_its_image(root):
    pytest.importorskip("pycocotools")
    data = changed(root, lambda c: c["annotations"].append(shape(77, 9, 2, [box(0, 0, 3, 3)])))
    assert data.labels(0) == (0, 2)
    for ask in (data.labels, data.mask):
        with pytest.raises(InputError, match=r"000009': annotation 77 is of category 2, which the file does not list"):
            ask(1)


def test_a_photograph_of_another_size_is_told(root):
    pytest.importorskip("pycocotools")
    Image.new("RGB", (W, H + 1)).save(root / "val2014" / CONTENT["images"][0]["file_name"])
    with pytest.raises(InputError, match=r"in the annotations is 12x10, but its photograph .* is 12x11"):
        COCO(root, "val2014").mask(0)


def test_images_may_lie_in_images(root):
    (root / "images").mkdir()
    (root / "val2014").rename(root / "images/val2014")
    assert COCO(root, "val2014", masks=False).photo(1).size == (W, H)
    own = root / "own.json"
    (root / "annotations/instances_val2014.json").rename(own)
    assert COCO(root, "val2014", annotations=own, masks=False).labels(1) == (1,)
    (root / "images/val2014").rename(root / "images/elsewhere")
    with pytest.raises(InputError, match="no folder val2014 or images/val2014"):
        COCO(root, "val2014", annotations=own, masks=False)


def test_another_split_is_told_with_those_there_are(root):
    with pytest.raises(InputError, match=r"instances_train2014\.json'; the splits there are val2014"):
        COCO(root, masks=False)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda c: c.pop("categories"), "must hold lists images, annotations, categories"),
        (lambda c: c.update(images={}), "must hold lists"),
        (lambda c: c.update(images=[], annotations=[]), "lists no images"),
        (lambda c: c["images"][0].pop("width"), "an entry has no 'width'"),
        (lambda c: c["images"][0].update(width="wide"), "not as it should"),
        (lambda c: c["annotations"][0].pop("category_id"), "an entry has no 'category_id'"),
        (lambda c: c["annotations"][0].update(image_id=5), "of image 5, which is not listed"),
        (lambda c: c["annotations"][3].update(image_id=5), "of image 5, which is not listed"),
        (lambda c: c["images"].append({**c["images"][0], "id": 1000}), "000042' twice"),
        (lambda c: c["images"][0].update(id=7), "image ids .* '7' twice"),
        (lambda c: c["categories"].append({"id": 1, "name": "again"}), "category ids .* '1' twice"),
        (lambda c: c["categories"].extend({"id": n, "name": str(n)} for n in range(100, 352)), "255 categories"),
    ],
)
def test_a_file_of_something_else_is_told_at_once(root, change, word):
    content = copy.deepcopy(CONTENT)
    change(content)
    write(root, content)
    with pytest.raises(InputError, match=word):
        COCO(root, "val2014", masks=False)


def test_damaged_json(root):
    path = root / "annotations/instances_val2014.json"
    path.write_text(path.read_text(encoding="utf-8")[:200], encoding="utf-8")
    with pytest.raises(InputError, match="damaged or not JSON"):
        COCO(root, "val2014", masks=False)


def test_without_pycocotools(root, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "pycocotools"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match=r'pip install "camplug\[coco\]"'):
        COCO(root, "val2014")
    assert COCO(root, "val2014", masks=False).labels(0) == (0, 2)


def test_nothing_is_printed(root, monkeypatch):
    pytest.importorskip("pycocotools")

    def loud(*_, **__):
        raise AssertionError("printed")

    monkeypatch.setattr(builtins, "print", loud)
    data = open_data(root, "val2014")
    assert data.mask(0).max() == 3
