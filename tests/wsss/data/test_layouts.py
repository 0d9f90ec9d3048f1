"""Data sets as other tools export them: endings, ids with dots, class folders, COCO of Roboflow, CVAT and labelme."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import COCO, VOC, Folder, Photographs, open_data
from camplug.wsss.data.opening import parse_source


def picture(path, red=0, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 0, 0)).save(path, format="PNG" if path.suffix == "" else None)


def mask(path, value=1, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], value, np.uint8)).save(path)


# ---- VOC trees


ENDINGS = ("frame.0001.jpg", "v1.0.cam0.JPG", "c.png", "d.jpeg", "e.WEBP", "f.Tif")
IDS = ("frame.0001", "v1.0.cam0", "c", "d", "e", "f")


@pytest.fixture
def tree(tmp_path):
    for n, name in enumerate(ENDINGS):
        picture(tmp_path / "JPEGImages" / name, 10 * n)
        mask(tmp_path / "SegmentationClass" / f"{IDS[n]}.png", 1 + n % 2)
    return tmp_path


def test_a_tree_without_lists_and_xml(tree):
    (tree / "classes.txt").write_text("background\nrust\nmoss\n")
    data = open_data(f"voc:{tree}")
    assert (sorted(data.ids), data.classes) == (sorted(IDS), ("rust", "moss"))
    assert (data.has_labels, data.has_masks) == (False, True)
    for n, name in enumerate(IDS):
        i = data.ids.index(name)
        assert abs(data.photo(i).getpixel((0, 0))[0] - 10 * n) <= 2
        assert (data.mask(i) == 1 + n % 2).all()
    assert open_data(f"voc:{tree}?labels=masks").labels(data.ids.index("c")) == (0,)


def test_ids_with_dots_in_lists(tree):
    listed = tree / "mine.txt"
    listed.write_text("frame.0001\nv1.0.cam0\n/JPEGImages/c.png /SegmentationClass/c.png\n")
    data = VOC(tree, listed, labels="none", classes=["rust", "moss"])
    assert data.ids == ("frame.0001", "v1.0.cam0", "c")
    assert data.photo(1).size == (6, 4)
    listed.write_text("frame.0001 frame.0002\n")
    with pytest.raises(InputError, match=r"line 1: 'frame\.0001 frame\.0002' is not one image's id"):
        VOC(tree, listed, labels="none")


def test_own_classes_and_folders_of_masks(tree):
    names = tree / "names.txt"
    names.write_text("rust\nmoss\n")
    mask(tree / "SegmentationClassAug" / "c.png", 2)
    data = open_data(f"voc:{tree}?masks=SegmentationClassAug&classes={names}")
    assert data.classes == ("rust", "moss")
    assert (data.mask(data.ids.index("c")) == 2).all()
    assert not open_data(f"voc:{tree}?masks=none").has_masks
    (tree / "Annotations").mkdir()
    (tree / "Annotations/c.xml").write_text("<a><object><name>moss</name></object></a>")
    one = VOC(tree, labels="xml", classes=names)
    assert one.labels(one.ids.index("c")) == (1,)
    with pytest.raises(InputError, match=r"names 'moss', which is not one of VOC's 20 classes .*classes\.txt"):
        VOC(tree).labels(one.ids.index("c"))
    with pytest.raises(InputError, match="names 'moss', which is no class; the classes are rust"):
        VOC(tree, classes=["rust"]).labels(one.ids.index("c"))


def test_labels_of_a_tree_from_a_table(tree):
    (tree / "classes.txt").write_text("rust\nmoss\n")
    rows = [f"{name},{'rust' if n % 2 == 0 else 'moss'}\n" for n, name in enumerate(ENDINGS)]
    (tree / "labels.csv").write_text("image,label\n" + "".join(rows[1:]))
    data = open_data(f"voc:{tree}")
    assert data.labels(data.ids.index("v1.0.cam0")) == (1,)
    with pytest.raises(InputError, match=r"there are no labels of 'frame\.0001'"):
        data.labels(data.ids.index("frame.0001"))
    np.save(tree / "cls_labels.npy", {"c": np.array([1.0, 0.0])}, allow_pickle=True)
    with pytest.raises(InputError, match=r"may hold code that runs .* make a labels\.json of it once, .*allow_pick"):
        open_data(f"voc:{tree}?labels=cls_labels.npy")


def test_a_tree_of_labelme(tmp_path):
    picture(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "SegmentationClass").mkdir()
    np.save(tmp_path / "SegmentationClass/a.npy", np.zeros((4, 6)))
    mask(tmp_path / "SegmentationClassPNG/a.png", 2)
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    data = open_data(tmp_path)
    assert data.classes == ("cat", "dog")
    assert (data.mask(0) == 2).all()


# ---- folders


def test_class_names_of_labelme_in_a_folder(tmp_path):
    for n, name in enumerate(("cat", "dog")):
        picture(tmp_path / f"images/{name}.jpg", n)
        mask(tmp_path / f"masks/{name}.png", n + 1)
    (tmp_path / "classes.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    (tmp_path / "labels.csv").write_text("image,labels\ncat.jpg,cat\ndog.jpg,dog\n")
    data = Folder(tmp_path)
    assert [data.labels(i) for i in range(2)] == [(0,), (1,)]
    assert [np.unique(data.mask(i)).tolist() for i in range(2)] == [[1], [2]]


def test_names_without_endings_and_other_endings(tmp_path):
    for n, name in enumerate(("frame.1.JPG", "b.webp", "c.png")):
        picture(tmp_path / "images" / name, 40 * n)
    (tmp_path / "labels.csv").write_text("image,class\nframe.1,cat\nb.jpg,dog\nc.png,background\n")
    data = Folder(tmp_path)
    assert (data.ids, data.classes) == (("frame.1", "b", "c"), ("cat", "dog"))
    assert [data.photo_file(i).name for i in range(3)] == ["frame.1.JPG", "b.webp", "c.png"]
    assert data.labels(2) == ()


def test_one_subfolder_per_class(tmp_path):
    for name in ("dog/a.jpg", "dog/b.PNG", "cat/a.jpg", "background/z.jpg", ".cache/x.jpg"):
        picture(tmp_path / name)
    (tmp_path / "cat/notes.txt").write_text("no photograph")
    for text in (f"folder:{tmp_path}", str(tmp_path)):
        data = open_data(text)
        assert data.classes == ("cat", "dog")
        assert data.ids == ("background/z", "cat/a", "dog/a", "dog/b")
        assert [data.labels(i) for i in range(4)] == [(), (0,), (1,), (1,)]
        assert data.photo(3).size == (6, 4)
    picture(tmp_path / "below/images/cat/a.jpg")
    assert Folder(tmp_path / "below").ids == ("cat/a",)


def test_a_header_that_is_nearly_right_is_told(tmp_path):
    picture(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text("picture,what\na.jpg,cat\n")
    with pytest.raises(InputError, match=r"the header is 'picture,what'; it must be 'image,labels' \(labels separated"):
        Folder(tmp_path)


# ---- COCO


def content(*names, categories=("cat", "dog"), used=(1, 2)):
    square = [1, 1, 4, 1, 4, 3, 1, 3]
    return {
        "images": [{"id": n, "file_name": name, "width": 6, "height": 4} for n, name in enumerate(names)],
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(categories)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": used[n % len(used)], "segmentation": [square], "iscrowd": 0}
            for n in range(len(names))
        ],
    }


def put(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def checked(data, ids=("a", "b")):
    pytest.importorskip("pycocotools")
    assert isinstance(data, COCO)
    assert (data.ids, data.classes) == (ids, ("cat", "dog"))
    assert [data.labels(i) for i in range(2)] == [(0,), (1,)]
    assert [data.photo(i).getpixel((0, 0))[0] for i in range(2)] == [50, 90]
    assert np.unique(data.mask(1)).tolist() == [0, 2]


def two(folder):
    picture(folder / "a.png", 50)
    picture(folder / "b.png", 90)


def test_roboflow(tmp_path):
    exported = content("a.png", "b.png")
    exported["categories"] = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        *({**c, "supercategory": "animals"} for c in exported["categories"]),
    ]
    for split in ("train", "valid"):
        two(tmp_path / split)
        put(tmp_path / split / "_annotations.coco.json", exported)
    with pytest.warns(UserWarning, match="'animals' has no annotations and is taken for no class"):
        checked(open_data(tmp_path))
    with pytest.warns(UserWarning, match="'animals'"):
        checked(open_data(f"coco:{tmp_path}", "valid"))
    with pytest.warns(UserWarning, match="'animals'"):
        checked(open_data(tmp_path / "valid"))


def test_cvat(tmp_path):
    two(tmp_path / "images")
    put(tmp_path / "annotations/instances_default.json", content("a.png", "b.png"))
    checked(open_data(tmp_path))


def test_labelme2coco(tmp_path):
    two(tmp_path / "JPEGImages")
    put(tmp_path / "annotations.json", content("JPEGImages/a.png", "JPEGImages/b.png"))
    checked(open_data(f"coco:{tmp_path}"))


def test_annotations_and_photographs_by_name(tmp_path):
    two(tmp_path / "shots")
    put(tmp_path / "mine.json", content("a.png", "b.png"))
    checked(open_data(f"coco:{tmp_path}?annotations=mine.json&photos=shots"))
    with pytest.raises(InputError, match=r"nor are they in images or beside the annotations \(the first is 'a\.png'\)"):
        open_data(f"coco:{tmp_path}?annotations=mine.json&masks=none")


def test_a_single_split_to_validate_on_is_not_taken_for_training(tmp_path):
    two(tmp_path / "val2017")
    put(tmp_path / "annotations/instances_val2017.json", content("a.png", "b.png"))
    with pytest.raises(InputError, match="the splits there are val2017"):
        open_data(f"coco:{tmp_path}?masks=none")


def test_two_categories_of_one_name_and_the_background(tmp_path):
    two(tmp_path)
    put(tmp_path / "annotations.json", content("a.png", "b.png", categories=("cat", "dog", "cat")))
    with pytest.raises(InputError, match=r"has two categories of the name 'cat' \(ids 1 and 3\); rename one"):
        COCO(tmp_path, masks=False)
    put(tmp_path / "annotations.json", content("a.png", "b.png", categories=("background", "cat"), used=(1, 2)))
    with pytest.raises(InputError, match="has 'background' among the classes"):
        COCO(tmp_path, masks=False)
    put(tmp_path / "annotations.json", content("a.png", "b.png", categories=("background", "cat"), used=(2,)))
    with pytest.warns(UserWarning, match="'background' has no annotations"):
        assert COCO(tmp_path, masks=False).classes == ("cat",)


# ---- photographs alone, and the text of a command line


def test_photographs_alone(tmp_path):
    for name in ("x/a.jpg", "x/deep/b.PNG", "c.webp"):
        picture(tmp_path / name)
    data = Photographs([tmp_path / "x", tmp_path / "c.webp"], ["cat"])
    assert (data.ids, data.classes, data.has_labels, data.has_masks) == (("a", "deep/b", "c"), ("cat",), False, False)
    assert data.photo(2).size == (6, 4)
    with pytest.raises(InputError, match="photographs without image labels"):
        data.labels(0)
    assert open_data(f"photos:{tmp_path}").ids == ("c", "x/a", "x/deep/b")
    assert open_data(tmp_path / "c.webp").ids == ("c",)
    with pytest.raises(InputError, match=r"is no data set .* Photographs without labels are 'photos:"):
        open_data(tmp_path)
    with pytest.raises(InputError, match="endings aside, has 'a' twice"):
        Photographs([tmp_path / "x", tmp_path / "x/a.jpg"])
    with pytest.raises(InputError, match=r"there is no file or folder 'none'"):
        Photographs(["none"])


def test_options_in_the_text(tmp_path, monkeypatch):
    assert parse_source("voc:a%20b?masks=none&classes=a%26b.txt") == (
        "voc", "a%20b", {"masks": None, "classes": "a&b.txt"},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"there is no option 'mask'; the options of voc are masks, labels, classes"):
        open_data("voc:x?mask=a")
    with pytest.raises(InputError, match="scenes has no options"):
        open_data("scenes:4?seed=2")
    with pytest.raises(InputError, match=r"'masks' is no option; write for instance \?masks="):
        open_data("voc:x?masks")
    picture(tmp_path / "what?/cat/a.jpg")
    assert open_data(f"folder:{tmp_path}/what?").ids == ("cat/a",)
