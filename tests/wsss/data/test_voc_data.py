"""VOC's layout: labels from XML or masks, masks as indices, every kind of photograph, and clear errors."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import VOC, VOC_CLASSES, make_voc_palette, open_data

DATA = os.environ.get("CAMPLUG_VOC")
CAT, DOG, PERSON = 7, 11, 14


def photo(path, height=6, width=8, mode="RGB", **options):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = 200, 40, 40
    Image.fromarray(pixels).convert(mode).save(path, quality=95, **options)


def mask_of(path, values, mode="P"):
    image = Image.fromarray(np.asarray(values, np.uint8))
    if mode == "P":
        image.putpalette(make_voc_palette().tobytes())
    image.save(path)


def annotation(path, *names):
    objects = "".join(
        f"<object><name>{n}</name><difficult>1</difficult><part><name>head</name></part></object>" for n in names
    )
    path.write_text(f"<annotation><filename>x</filename>{objects}</annotation>", encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name in ("a", "b", "c"):
        photo(root / f"JPEGImages/{name}.jpg")
    annotation(root / "Annotations/a.xml", "dog", "cat", "dog")
    annotation(root / "Annotations/b.xml", "person")
    annotation(root / "Annotations/c.xml")
    values = np.zeros((6, 8), np.uint8)
    values[1:4, 2:5] = CAT + 1
    values[4, :] = 255
    mask_of(root / "SegmentationClass/a.png", values)
    mask_of(root / "SegmentationClass/b.png", np.full((6, 8), PERSON + 1), mode="L")
    (root / "ImageSets/Segmentation/train.txt").write_text("a\nb\n\nc\n", encoding="utf-8")
    (root / "ImageSets/Segmentation/val.txt").write_text("b\n", encoding="utf-8")
    return root


def test_labels_ids_and_masks(root):
    data = VOC(root)
    assert data.ids == ("a", "b", "c")
    assert len(data) == 3
    assert data.classes == VOC_CLASSES
    assert len(VOC_CLASSES) == 20
    assert [data.labels(i) for i in range(3)] == [(CAT, DOG), (PERSON,), ()]
    mask = data.mask(0)
    assert mask.dtype == np.uint8
    assert mask.tolist()[1] == [0, 0, 8, 8, 8, 0, 0, 0]
    assert mask.tolist()[4] == [255] * 8
    assert (data.mask(1) == PERSON + 1).all()
    assert VOC(root, "val").ids == ("b",)
    assert data.photo(0).size == (8, 6)


def test_labels_never_open_a_mask_unless_asked_to(root):
    (root / "SegmentationClass/a.png").write_bytes(b"broken")
    assert VOC(root).labels(0) == (CAT, DOG)
    with pytest.raises(InputError, match=r"a\.png' is damaged"):
        VOC(root, labels="masks").labels(0)


def test_labels_from_masks_need_no_annotations(root):
    for path in (root / "Annotations").iterdir():
        path.unlink()
    (root / "Annotations").rmdir()
    data = VOC(root, labels="masks")
    assert data.labels(0) == (CAT,)  # neither background nor 255
    assert data.labels(1) == (PERSON,)
    with pytest.raises(InputError, match=r"no folder Annotations; with labels=\"masks\""):
        VOC(root)


@pytest.mark.parametrize("up", [0, 1, 2])
def test_folders_above_do_as_well(root, up):
    assert VOC([root, *root.parents][up], "val").labels(0) == (PERSON,)


def test_a_split_can_be_any_text_file(root, tmp_path):
    own = tmp_path / "mine.txt"
    own.write_text("\ufeff/JPEGImages/b.jpg /SegmentationClassAug/b.png\r\n/JPEGImages/a.jpg\r\n", encoding="utf-8")
    assert VOC(root, own).ids == ("b", "a")
    own.write_text("a -1\nb 1\n", encoding="utf-8")  # ImageSets/Main/cat_train.txt
    with pytest.raises(InputError, match=r"line 1: 'a -1' is not one image's id"):
        VOC(root, own)
    own.write_text("a\nb\na\n", encoding="utf-8")
    with pytest.raises(InputError, match="has 'a' twice"):
        VOC(root, own)
    own.write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match="is empty"):
        VOC(root, own)
    own.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match="not a text file"):
        VOC(root, own)


def test_what_is_missing_is_told_at_once(root, tmp_path):
    with pytest.raises(InputError, match=r"no split 'trian'; .* has train, val, and the path of a text file"):
        VOC(root, "trian")
    with pytest.raises(InputError, match="no folder SegmentationClassAug; masks=None"):
        VOC(root, masks="SegmentationClassAug")
    with pytest.raises(InputError, match="is not VOC 2012"):
        VOC(root / "ImageSets")
    with pytest.raises(InputError, match="is missing; give the data set's folder"):
        VOC(tmp_path / "nothing")
    with pytest.raises(InputError, match="is a file"):
        VOC(root / "JPEGImages/a.jpg")
    with pytest.raises(InputError, match='labels come from "xml", "masks", "none", or a'):
        VOC(root, labels="json")
    with pytest.raises(InputError, match="needs masks"):
        VOC(root, masks=None, labels="masks")


def test_without_masks(root):
    data = VOC(root, masks=None)
    assert not data.has_masks
    assert data.labels(0) == (CAT, DOG)
    with pytest.raises(InputError, match="has no masks"):
        data.mask(0)


def test_one_broken_image_is_told_when_it_is_asked_for(root):
    data = VOC(root)
    assert data.has_masks
    with pytest.raises(InputError, match=r"no mask .*c\.png"):
        data.mask(2)
    jpeg = (root / "JPEGImages/a.jpg").read_bytes()
    (root / "JPEGImages/a.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (root / "JPEGImages/b.jpg").unlink()
    with pytest.raises(InputError, match=r"a\.jpg' is"):
        data.photo(0)
    with pytest.raises(InputError, match=r"no file .*b\.jpg"):
        data.photo(1)
    with pytest.raises(InputError, match=r"no file .*b\.jpg"):
        data.mask(1)
    (root / "Annotations/a.xml").write_text("<annotation><object>", encoding="utf-8")
    (root / "Annotations/b.xml").unlink()
    annotation(root / "Annotations/c.xml", "cat", "unicorn")
    with pytest.raises(InputError, match=r"a\.xml' is damaged"):
        data.labels(0)
    with pytest.raises(InputError, match=r"no annotation .*b\.xml"):
        data.labels(1)
    with pytest.raises(InputError, match="'unicorn', which is not one of VOC's 20"):
        data.labels(2)


@pytest.mark.parametrize("i", [-1, 3, 1.0, "a", None])
def test_images_are_counted_from_0(root, i):
    with pytest.raises(InputError, match=r"does not exist|by number"):
        VOC(root).labels(i)
    assert VOC(root).labels(np.int64(1)) == (PERSON,)


def test_a_turned_photograph_takes_an_upright_mask(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((6, 8, 3), np.uint8)  # upright: 6 wide, 8 high, its top is the stored left
    stored[:, :4] = 255
    Image.fromarray(stored).save(root / "JPEGImages/a.jpg", quality=100, subsampling=0, exif=exif)
    data = VOC(root)
    upright = np.asarray(data.photo(0))
    assert upright.shape == (8, 6, 3)
    assert upright[:3].min() > 200
    assert upright[5:].max() < 50
    with pytest.raises(InputError, match=r"a\.png' is 8x6, but its photograph .*a\.jpg' is 6x8 \(upright\)"):
        data.mask(0)
    values = np.zeros((8, 6), np.uint8)
    values[:4] = 1
    mask_of(root / "SegmentationClass/a.png", values)
    assert data.mask(0).tolist() == values.tolist()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_photographs(root, mode):
    photo(root / "JPEGImages/a.jpg", mode=mode)
    data = VOC(root)
    assert data.photo(0).mode == "RGB"
    left = np.asarray(data.photo(0)).astype(int)[:, :3].mean((0, 1))
    grey = 0.299 * 200 + 0.587 * 40 + 0.114 * 40
    assert np.abs(left - ([grey] * 3 if mode == "L" else [200, 40, 40])).max() < 25
    assert data.mask(0)[1, 2] == CAT + 1


def test_a_mask_of_another_size_is_refused(root):
    mask_of(root / "SegmentationClass/a.png", np.zeros((6, 7)))
    with pytest.raises(InputError, match=r"is 7x6, but its photograph .* is 8x6"):
        VOC(root).mask(0)


def test_a_mask_must_hold_class_numbers(root):
    path = root / "SegmentationClass/a.png"
    mask_of(path, np.full((6, 8), 21))
    with pytest.raises(InputError, match="holds the value 21; allowed are 0"):
        VOC(root).mask(0)
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(path)
    with pytest.raises(InputError, match="is a RGB PNG; save class numbers as a palette PNG"):
        VOC(root).mask(0)
    Image.fromarray(np.zeros((6, 8), np.uint16)).save(path)
    with pytest.raises(InputError, match="is a I;16 PNG"):
        VOC(root).mask(0)
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(path, format="JPEG")
    with pytest.raises(InputError, match="is a L JPEG"):
        VOC(root).mask(0)
    whole = np.random.default_rng(0).integers(0, 21, (6, 8))
    mask_of(path, whole)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"a\.png' is damaged"):
        VOC(root).mask(0)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_masks_of_few_bits_are_refused_and_palettes_of_few_bits_read(root, bits):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def png(colour):
        rows = (b"\0" + bytes([0b00010001] * bits)) * 6  # 8 pixels a row
        palette = chunk(b"PLTE", make_voc_palette()[: 2**bits].tobytes()) if colour == 3 else b""
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, bits, colour, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

    path = root / "SegmentationClass/a.png"
    path.write_bytes(png(colour=3))
    row = {1: [0, 0, 0, 1, 0, 0, 0, 1], 2: [0, 1, 0, 1, 0, 1, 0, 1], 4: [1, 1, 1, 1, 1, 1, 1, 1]}[bits]
    assert VOC(root).mask(0).tolist() == [row] * 6
    path.write_bytes(png(colour=0))  # Pillow would read 4-bit ones as 17, which is a sheep
    with pytest.raises(InputError, match="8-bit grey PNG"):
        VOC(root).mask(0)


def test_palette_is_vocs():
    palette = make_voc_palette()
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    assert palette[VOC_CLASSES.index("tvmonitor") + 1].tolist() == [0, 64, 128]
    assert palette[VOC_CLASSES.index("sheep") + 1].tolist() == [128, 64, 0]
    assert len(np.unique(palette, axis=0)) == 256


@pytest.mark.skipif(not DATA, reason="set CAMPLUG_VOC to VOCdevkit/VOC2012")
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_labels_are_those_of_the_masks(split):
    data, seen = VOC(DATA, split), VOC(DATA, split, labels="masks")
    assert len(data) in {"train": (437, 1464), "val": (222, 1449)}[split]  # the animals subset, the whole
    few = range(0, len(data), 3)
    assert np.mean([data.labels(i) == seen.labels(i) for i in few]) >= 0.98  # in the subset, all
    for i in list(few)[:20]:
        assert data.mask(i).shape == np.asarray(data.photo(i)).shape[:2]
        assert set(np.unique(data.mask(i))) <= {0, 255, *(c + 1 for c in seen.labels(i))}


@pytest.mark.skipif(not DATA, reason="set CAMPLUG_VOC to VOCdevkit/VOC2012")
def test_real_images_without_masks():
    if not os.path.isfile(os.path.join(DATA, "ImageSets/Segmentation/train_aug.txt")):
        pytest.skip("this VOC has no list train_aug")
    data = open_data(f"voc:{DATA}", "train_aug")
    assert len(data) in (3131, 10582)
    with pytest.raises(InputError, match="there is no mask"):
        data.mask(len(data) - 1)
    assert data.labels(len(data) - 1)


@pytest.mark.skipif(not DATA, reason="set CAMPLUG_VOC to VOCdevkit/VOC2012")
def test_real_masks_carry_the_palette():
    data = VOC(DATA, "val")
    with Image.open(data.root / "SegmentationClass" / f"{data.ids[0]}.png") as image:
        stored = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(stored, make_voc_palette()[: len(stored)])
