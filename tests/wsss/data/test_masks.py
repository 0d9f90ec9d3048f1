"""Values and colours of masks, and masks that contradict the image labels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import VOC, Folder, open_data
from camplug.wsss.data.masks import MaskCode, read_mask, read_palette
from camplug.wsss.recipe.data import ImageList


def cracks(root, values=(0, 255), classes="crack\n", labels="crack", count=4):
    """A folder whose masks hold two values, left and right."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    (root / "classes.txt").write_text(classes)
    rows = [f"{i}.png,{labels}\n" for i in range(count)]
    (root / "labels.csv").write_text("image,labels\n" + "".join(rows))
    for i in range(count):
        Image.new("RGB", (6, 4), (9 * i, 0, 0)).save(root / "images" / f"{i}.png")
        mask = np.repeat([values], 4, 0).repeat(3, 1).astype(np.uint8)
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    return root


def test_masks_of_0_and_255_are_refused_with_the_way_out(tmp_path):
    root = cracks(tmp_path)
    data = Folder(root)
    assert data.labels(0) == (0,)  # no mask is opened for it
    with pytest.raises(InputError) as refusal:
        data.mask(2)
    assert str(refusal.value) == (
        "none of 4 masks shows a class that its image is labelled with: '0' is labelled crack, its mask holds 0 "
        "(background), 255 (ignored). Say what the values mean, as in --mask-values 255=crack or "
        f"'folder:{root}?mask_values=255=crack', or mend classes.txt; --mask-values 255=ignore takes them as they are."
    )


@pytest.mark.parametrize("values", ["255=crack", {255: "crack"}, {"255": "crack"}, "0=background, 255 = crack"])
def test_values_can_be_said(tmp_path, values):
    data = Folder(cracks(tmp_path), mask_values=values)
    assert data.mask(0).tolist() == [[0, 0, 0, 1, 1, 1]] * 4
    assert data.mask(0).dtype == np.uint8
    assert open_data(f"folder:{tmp_path}?mask_values=255=crack").mask(3).tolist() == data.mask(3).tolist()
    assert open_data(tmp_path, mask_values=values).mask(1).tolist() == data.mask(1).tolist()
    kept = Folder(tmp_path, mask_values="255=ignore")
    assert kept.mask(0).tolist() == [[0, 0, 0, 255, 255, 255]] * 4
    assert len({data.mask_digest(0), kept.mask_digest(0), Folder(tmp_path).mask_digest(0)}) == 3


def test_shifted_masks_are_refused_and_one_that_fits_is_enough(tmp_path):
    root = cracks(tmp_path, (0, 2), "cat\ndog\n", "cat")
    with pytest.raises(InputError, match=r"'0' is labelled cat, its mask holds 0 \(background\), 2 \(dog\)\. Say what"):
        Folder(root).mask(0)
    assert set(np.unique(Folder(root, mask_values="2=cat").mask(0))) == {0, 1}
    Image.fromarray(np.ones((4, 6), np.uint8)).save(root / "masks" / "3.png")
    assert set(np.unique(Folder(root).mask(0))) == {0, 2}  # somebody's labels may be wrong here and there


def test_images_without_labels_contradict_nothing(tmp_path):
    root = cracks(tmp_path, (0, 255), labels="")
    assert set(np.unique(Folder(root).mask(0))) == {0, 255}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("255=rust", "names 'rust'; the classes are crack, and background and ignore do as well"),
        ("crack=255", "cannot be read; write for instance 255=crack"),
        ("", "cannot be read"),
        ({256: "crack"}, "has the value 256; give whole numbers from 0 to 255"),
        ({"a": "crack"}, "has the value 'a'"),
    ],
)
def test_wrong_values_are_told(given, word):
    with pytest.raises(InputError, match=word):
        MaskCode(["crack"], given)


def test_class_names_with_commas_and_equals():
    code = MaskCode(["crack, wide", "a=b"], "255=crack, wide,7=a=b")
    assert code.values == {255: 1, 7: 2}


PALETTE = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:0,128,0::\ncat:128,0,0::\nvoid:255,255,255::\n"


def test_colours_of_a_palette(tmp_path):
    file = tmp_path / "labelmap.txt"
    file.write_text(PALETTE)
    assert read_palette(file)[1] == ("dog", (0, 128, 0))
    colours = np.array([[(0, 0, 0), (128, 0, 0)], [(0, 128, 0), (255, 255, 255)]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "m.png")
    code = MaskCode(["cat", "dog"], palette=file)
    assert code.read(tmp_path / "m.png").tolist() == [[0, 1], [2, 255]]
    Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert code.read(tmp_path / "p.png").tolist() == [[0, 1], [2, 255]]  # whatever order the indices have
    Image.fromarray(np.array([[2, 1]], np.uint8)).save(tmp_path / "g.png")
    assert code.read(tmp_path / "g.png").tolist() == [[2, 1]]
    colours[0, 0] = 1, 2, 3
    Image.fromarray(colours).save(tmp_path / "m.png")
    with pytest.raises(InputError, match=r"m\.png' holds the colour 1, 2, 3, which the palette does not name"):
        code.read(tmp_path / "m.png")
    with pytest.raises(InputError, match=r"is a RGB PNG; .* a file of the classes' colours \(palette\) makes RGB"):
        read_mask(tmp_path / "m.png", 2)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("cat 1 2 3\n", "line 1: 'cat 1 2 3' is no 'name:red,green,blue'"),
        ("cat:1,2,256\n", "line 1"),
        ("", "must give every class one colour of its own"),
        ("cat:1,2,3\ndog:1,2,3\n", "must give every class one colour of its own"),
        ("cat:1,2,3\nyak:3,2,1\n", "names 'yak'; the classes are cat"),
    ],
)
def test_wrong_palettes_are_told(tmp_path, text, word):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(InputError, match=word):
        MaskCode(["cat"], palette=tmp_path / "p.txt")


def test_a_tree_of_cvat(tmp_path):
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "labelmap.txt").write_text(PALETTE.replace("void:255,255,255::\n", ""))
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("frame.01\n")
    Image.new("RGB", (2, 1)).save(tmp_path / "JPEGImages/frame.01.PNG")
    Image.fromarray(np.array([[(0, 0, 0), (128, 0, 0)]], np.uint8)).save(tmp_path / "SegmentationClass/frame.01.png")
    data = open_data(tmp_path)
    assert isinstance(data, VOC)
    assert (data.classes, data.ids, data.has_labels) == (("dog", "cat"), ("frame.01",), False)
    assert data.mask(0).tolist() == [[0, 2]]
    with pytest.raises(InputError, match=r"has neither Annotations nor labels\.csv; labels=masks takes the classes"):
        data.labels(0)
    assert open_data(f"{tmp_path}?labels=masks").labels(0) == (1,)


def test_options_of_a_recipe(tmp_path):
    root = cracks(tmp_path / "d")
    said = ImageList(f"folder:{root}", options={"mask_values": {255: "crack"}})
    assert said.open().mask(0).tolist() == ImageList(f"{root}?mask_values=255=crack").open().mask(0).tolist()
    with pytest.raises(InputError, match="labels: masks would open masks to learn from"):
        ImageList(f"voc:{root}?labels=masks").open()
    with pytest.raises(InputError, match=r"no option .mask.; the options of folder are labels, mask_values, palette"):
        ImageList(f"folder:{root}", options={"mask": 1}).open()
