"""A folder of one's own: both files of labels, the order of classes, masks, and one sentence for every slip."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import Folder


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    for n, name in enumerate(("a.jpg", "b.png", "c.jpeg")):
        Image.new("RGB", (5, 4), (50 * n, 0, 0)).save(tmp_path / "images" / name, quality=95)
    return tmp_path


def csv(root, text):
    (root / "labels.csv").write_text(text, encoding="utf-8")
    return Folder(root)


LISTS = "image,labels\nb.png,dog;potted plant\na.jpg, cat \n\nc.jpeg,\n"
COLUMNS = "\ufeffimage,dog,cat,potted plant\r\nb.png,1,0,1\r\na.jpg,0,1,0\r\nc.jpeg,0,0,0\r\n"
OBJECT = json.dumps({"b.png": ["potted plant", "dog"], "a.jpg": ["cat"], "c.jpeg": []})


@pytest.mark.parametrize(("name", "text"), [("labels.csv", LISTS), ("labels.csv", COLUMNS), ("labels.json", OBJECT)])
def test_all_forms_say_the_same(root, name, text):
    (root / name).write_text(text, encoding="utf-8")
    data = Folder(root)
    assert data.ids == ("b", "a", "c")
    assert data.classes == ("cat", "dog", "potted plant")
    assert [data.labels(i) for i in range(3)] == [(1, 2), (0,), ()]
    assert np.asarray(data.photo(0)).tolist() == [[[50, 0, 0]] * 5] * 4
    assert not data.has_masks
    with pytest.raises(InputError, match="has no folder masks"):
        data.mask(0)
    with pytest.raises(InputError, match="image 3 does not exist; this data set has 3"):
        data.photo(3)


def test_classes_txt_gives_the_order(root):
    (root / "classes.txt").write_text("potted plant\nhorse\n\ndog\ncat\n", encoding="utf-8")
    data = csv(root, LISTS)
    assert data.classes == ("potted plant", "horse", "dog", "cat")
    assert data.labels(0) == (0, 2)
    with pytest.raises(InputError, match=r"names 'cow' for 'a\.jpg', which is not in .*classes\.txt"):
        csv(root, "image,labels\nb.png,dog\na.jpg,cow\n")
    (root / "classes.txt").write_text("dog\ncat\ndog\n", encoding="utf-8")
    with pytest.raises(InputError, match="'dog' twice"):
        csv(root, LISTS)


def test_masks(root):
    (root / "masks").mkdir()
    values = np.zeros((4, 5), np.uint8)
    values[0], values[1, 2] = 2, 255
    Image.fromarray(values).save(root / "masks/b.png")
    with pytest.raises(InputError, match=r"no classes\.txt; it must name the classes one per line"):
        csv(root, LISTS)
    (root / "classes.txt").write_text("cat\ndog\npotted plant\n", encoding="utf-8")
    data = csv(root, LISTS)
    assert data.has_masks
    assert data.mask(0).tolist() == values.tolist()
    with pytest.raises(InputError, match=r"no mask .*a\.png"):
        data.mask(1)
    values[0] = 4
    Image.fromarray(values).save(root / "masks/b.png")
    with pytest.raises(InputError, match=r"value 4; allowed are 0 \(background\), 1 to 3"):
        data.mask(0)
    Image.fromarray(values[:3]).save(root / "masks/b.png")
    with pytest.raises(InputError, match="value 4"):
        data.mask(0)
    Image.fromarray(0 * values[:3]).save(root / "masks/b.png")
    with pytest.raises(InputError, match=r"is 5x3, but its photograph .* is 5x4"):
        data.mask(0)


def test_photographs_beside_the_labels_and_in_subfolders(tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("x/1.png", "1.png"):
        Image.new("RGB", (5, 4), (len(name), 0, 0)).save(tmp_path / name)
    data = csv(tmp_path, "image,labels\nx/1.png,cat\n1.png,dog\n")
    assert data.ids == ("x/1", "1")
    assert data.photo(0).getpixel((0, 0)) == (7, 0, 0)


def test_one_missing_photograph_is_told_when_it_is_asked_for(root):
    data = csv(root, "image,labels\nmissing.jpg,cat\na.jpg,dog\n")
    assert data.labels(0) == (0,)
    with pytest.raises(InputError, match=r"no file .*missing\.jpg"):
        data.photo(0)
    assert data.photo(1).size == (5, 4)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "lists no images"),
        ("image,labels\n", "lists no images"),
        ("a.jpg,cat\nb.png,dog\n", r"line 1: the header is 'a\.jpg,cat'; it must be"),
        ("image\na.jpg\n", "line 1: the header"),
        ("image,cat,cat\na.jpg,1,0\n", "'cat' twice"),
        ("image,labels\na.jpg,cat,dog\n", "line 2 has 3 cells, the header 2; several labels take ';'"),
        ("image,labels\na.jpg,cat\na.jpg,dog\n", r"line 3 has 'a\.jpg' a second time"),
        ("image,labels\n,cat\n", "line 2 names no image"),
        ("image,cat,dog\na.jpg,1,2\n", "line 2 has '2' below a class; 0 or 1"),
        ("image,cat,dog\na.jpg,1,\n", "line 2 has '' below a class"),
        ("image,labels\na.jpg,cat dog\nb.png,cat\nc.jpeg,dog\n", "'cat dog' beside 'cat' and 'dog'; separate"),
        ("image,labels\na.jpg,\n", "has 0 classes"),
        ("image,labels\nx,cat\ny,dog\n", "none of the images .* the first is 'x'"),
        ("image,labels\na.jpg,cat\na.png,cat\n", "endings aside, has 'a' twice"),
        ("image,labels\n../a.jpg,cat\n", r"names '\.\./a\.jpg'; images are named within"),
        ("image,labels\n/a.jpg,cat\n", "images are named within"),
    ],
)
def test_a_wrong_table_is_told_with_its_line(root, text, word):
    with pytest.raises(InputError, match=word):
        csv(root, text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"a.jpg": ["cat"', "damaged or not JSON"),
        ('["a.jpg"]', "holds a list; it must hold"),
        ('{"a.jpg": "cat"}', "has 'cat' for 'a.jpg'; it must hold"),
        ('{"a.jpg": [1]}', r"has \[1\] for"),
        ('{"a.jpg": [" "]}', "for 'a.jpg'"),
        ('{"a.jpg": ["cat"], "a.jpg": ["dog"]}', "'a.jpg' twice"),
        ("{}", "lists no images"),
    ],
)
def test_wrong_json_is_told(root, text, word):
    (root / "labels.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=word):
        Folder(root)


def test_one_file_of_labels(root):
    with pytest.raises(InputError, match=r"has neither labels\.csv nor labels\.json, nor a subfolder of photographs"):
        Folder(root)
    (root / "labels.json").write_text(OBJECT, encoding="utf-8")
    with pytest.raises(InputError, match=r"has both labels\.csv and labels\.json; keep one of them"):
        csv(root, LISTS)


def test_a_file_that_is_not_text(root):
    (root / "labels.csv").write_bytes(b"image,labels\n\xff\xfe.jpg,cat\n")
    with pytest.raises(InputError, match="not a text file in UTF-8"):
        Folder(root)
