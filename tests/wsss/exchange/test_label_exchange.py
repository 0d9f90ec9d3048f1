"""Label maps that go to annotation tools and come back: the pixels are the same."""

from __future__ import annotations

import base64
import io
import json
from xml.etree import ElementTree as et

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from camplug.cli.app import app
from camplug.errors import InputError
from camplug.wsss.exchange import FORMATS, LabelledImage, read_label_maps, write_label_maps
from camplug.wsss.exchange.brush import decode_brush, encode_brush
from camplug.wsss.exchange.labelme import trace_polygons
from camplug.wsss.exchange.shapes import Shape, decode_runs, encode_runs, fill_polygon
from camplug.wsss.pseudo import LabelFolder

NAMES = ["cat", "big dog", "yak & co"]


def make_labels(seed, size=(13, 17)):
    """Blobs of all labels, ignored pixels among them, with holes, islands and corners that touch."""
    rng = np.random.default_rng(seed)
    values = np.array([0, 1, 2, 3, 255], np.uint8)
    small = values[rng.integers(0, 5, (size[0] // 3 + 1, size[1] // 3 + 1))]
    labels = np.kron(small, np.ones((3, 3), np.uint8))[: size[0], : size[1]]
    noisy = rng.random(size) < 0.1
    labels[noisy] = values[rng.integers(0, 5, int(noisy.sum()))]
    return labels


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "far").mkdir(parents=True)
    for name in ("a b.jpg", "c.png", "far/a b.jpg"):
        Image.new("RGB", (17, 13), "white").save(folder / name)
    return folder


def make_images():
    return [LabelledImage(name, make_labels(i)) for i, name in enumerate(("a b.jpg", "c.png", "far/a b.jpg"))]


def accept_predictions(file):
    """Copy every prediction into an annotation, as an annotator who accepts all of them does."""
    tasks = json.loads(file.read_text())
    for task in tasks:
        task["annotations"] = [{"result": p["result"]} for p in task["predictions"]]
    file.write_text(json.dumps(tasks))


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_pixels_survive_the_way_there_and_back(kind, photos, tmp_path):
    if kind == "coco":
        pytest.importorskip("pycocotools")
    file = tmp_path / "out"
    write_label_maps(make_images(), NAMES, file, kind)
    if kind == "label-studio":
        accept_predictions(file)
    found = {image.file: image.labels for image in read_label_maps(file, NAMES, photos, kind)}
    assert sorted(found) == ["a b", "c", "far/a b"]
    for image in make_images():
        np.testing.assert_array_equal(found[image.file.rpartition(".")[0]], image.labels, err_msg=image.file)


def test_brush_masks_by_hand():
    """2 x 1 pixels, the first inside: 8 bytes, words of 8 bits, counts of 3, 4, 8 and 16; two runs of four bytes."""
    bits = f"{8:032b}" + "00111" + "0010" + "0011" + "0111" + "1111"
    bits += "1" + "00" + "000" + f"{0:08b}"  # a run of one byte, read as such though the writer would join it
    bits += "0" + "00" + "010" + f"{0:08b}" * 2 + f"{255:08b}"  # a list of three
    bits += "1" + "00" + "011" + f"{0:08b}"
    bits += "0" * (-len(bits) % 8)
    packed = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert decode_brush(packed, (2, 1), "x").tolist() == [[True], [False]]
    runs = f"{8:032b}" + "00111" + "0010001101111111" + "100011" + "1" * 8 + "100011" + "0" * 8
    runs += "0" * (-len(runs) % 8)
    assert encode_brush(np.array([[True], [False]])) == [int(runs[i : i + 8], 2) for i in range(0, len(runs), 8)]
    big = np.zeros((150, 300), bool)
    big[3:140, 5:] = True  # runs beyond 65,536 bytes
    np.testing.assert_array_equal(decode_brush(encode_brush(~big), big.shape, "x"), ~big)
    with pytest.raises(InputError, match="ends too early"):
        decode_brush(packed[:-3], (2, 1), "x")
    with pytest.raises(InputError, match="has 8 bytes, not 16"):
        decode_brush(packed, (2, 2), "x")


def test_runs_of_cvat():
    mask = np.array([[1, 1, 0], [0, 0, 1]], bool)
    assert encode_runs(mask) == [0, 2, 3, 1]
    assert decode_runs([0, 2, 3, 1], (2, 3), "x").tolist() == mask.tolist()
    with pytest.raises(InputError, match="add up to 5 pixels, not 6"):
        decode_runs([0, 2, 3], (2, 3), "x")


def test_cvat_stores_masks_in_their_boxes_and_reads_polygons_by_height(photos, tmp_path):
    labels = np.zeros((13, 17), np.uint8)
    labels[2:4, 5:8] = 2
    labels[2, 6] = 0
    write_label_maps([LabelledImage("c.png", labels)], NAMES, tmp_path / "a.xml", "cvat")
    root = et.parse(tmp_path / "a.xml").getroot()
    given = root.find("image/mask").attrib
    assert {k: given[k] for k in ("label", "rle", "left", "top", "width", "height")} == {
        "label": "big dog", "rle": "0, 1, 1, 4", "left": "5", "top": "2", "width": "3", "height": "2"
    }  # fmt: skip
    assert [e.text for e in root.iterfind("meta/task/labels/label/name")] == [*NAMES, "__ignore__"]
    image = root.find("image")
    et.SubElement(image, "polygon", {"label": "cat", "points": "0,0;3,0;3,2;0,2", "z_order": "1"})
    et.SubElement(image, "box", {"label": "yak & co", "xtl": "2", "ytl": "0", "xbr": "4", "ybr": "1", "z_order": "0"})
    (tmp_path / "a.xml").write_bytes(et.tostring(root))
    (found,) = read_label_maps(tmp_path / "a.xml", NAMES, photos, "cvat")
    labels[0:2, 0:3], labels[0, 3] = 1, 3  # the polygon lies above the box
    np.testing.assert_array_equal(found.labels, labels)


def test_polygons_miss_pixels_within_the_tolerance_only():
    y, x = np.mgrid[:60, :60]
    disc = (y - 30) ** 2 + (x - 28) ** 2 < 20**2
    ((name, exact),), ((_, rough),) = (trace_polygons([Shape("cat", disc)], t) for t in (0, 1))
    assert name == "cat"
    assert len(rough) < len(exact) / 4
    np.testing.assert_array_equal(fill_polygon(exact, disc.shape, "x"), disc)
    wrong = fill_polygon(rough, disc.shape, "x") ^ disc
    distance = np.abs(np.hypot(y - 30, x - 28) - 20)
    assert wrong.sum() < 0.1 * disc.sum()
    assert distance[wrong].max() < 2  # a pixel of tolerance, and what a pixel's centre is off the outline
    dot = np.zeros((5, 5), bool)
    dot[2, 3] = True
    ((_, corners),) = trace_polygons([Shape("cat", dot)], 1)
    np.testing.assert_array_equal(fill_polygon(corners, dot.shape, "x"), dot)


def test_masks_and_rectangles_of_labelme(photos, tmp_path):
    write_label_maps([LabelledImage("c.png", np.zeros((13, 17), np.uint8))], NAMES, tmp_path / "j", "labelme")
    content = json.loads((tmp_path / "j" / "c.json").read_text())
    assert content["imagePath"] == "c.png"
    assert content["shapes"] == []
    file = io.BytesIO()
    Image.fromarray(np.array([[255, 0], [255, 255]], np.uint8)).save(file, "PNG")
    mask = {"label": "cat", "shape_type": "mask", "points": [[4, 1], [5, 2]]}
    mask["mask"] = base64.b64encode(file.getvalue()).decode()
    content["shapes"] = [{"label": "big dog", "shape_type": "rectangle", "points": [[3, 1], [6, 2]]}, mask]
    (tmp_path / "j" / "c.json").write_text(json.dumps(content))
    (found,) = read_label_maps(tmp_path / "j", NAMES, photos, "labelme")
    assert found.labels[1:3, 3:7].tolist() == [[2, 1, 2, 0], [0, 1, 1, 0]]
    assert np.count_nonzero(found.labels) == 5


def test_label_studio_takes_annotations_only_and_names_of_uploads(photos, tmp_path):
    file = tmp_path / "tasks.json"
    write_label_maps(make_images(), NAMES, file, "label-studio")
    assert list(read_label_maps(file, NAMES, photos, "label-studio")) == []
    tasks = json.loads(file.read_text())
    assert tasks[0]["data"] == {"image": "/data/local-files/?d=a%20b.jpg"}
    square = {"points": [[0, 0], [100 / 17, 0], [100 / 17, 200 / 13], [0, 200 / 13]], "polygonlabels": ["cat"]}
    region = {"type": "polygonlabels", "original_width": 17, "original_height": 13, "value": square}
    tasks[1]["data"] = {"image": "/data/upload/1/0123abcd-c.png"}
    tasks[1]["annotations"] = [{"result": [region]}, {"was_cancelled": True, "result": []}]
    file.write_text(json.dumps(tasks))
    (found,) = read_label_maps(file, NAMES, photos, "label-studio")
    assert found.file == "c"
    assert np.argwhere(found.labels == 1).tolist() == [[0, 0], [1, 0]]
    assert found.labels.sum() == 2
    config = et.parse(file.with_suffix(".config.xml")).getroot()
    assert [e.get("value") for e in config.iter("Label")] == [*NAMES, "__ignore__"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "ellipselabels"}, "type 'ellipselabels'; allowed are brushlabels and polygonlabels"),
        ({"original_width": 34}, "for 34x13 pixels, rotated by 0; the photograph is 17x13"),
        ({"image_rotation": 90}, "rotated by 90"),
        ({"value": {"rle": [], "brushlabels": ["cat", "big dog"]}}, "2 classes; give each one"),
        ({"value": {"rle": encode_brush(np.ones((13, 17), bool)), "brushlabels": ["cow"]}}, "names 'cow'; the classes"),
    ],
)
def test_regions_that_cannot_be_read(change, message, photos, tmp_path):
    file = tmp_path / "tasks.json"
    write_label_maps(make_images()[:1], NAMES, file, "label-studio")
    accept_predictions(file)
    tasks = json.loads(file.read_text())
    tasks[0]["annotations"][0]["result"][0] |= change
    file.write_text(json.dumps(tasks))
    with pytest.raises(InputError, match=message):
        list(read_label_maps(file, NAMES, photos, "label-studio"))


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_files_that_are_something_else(kind, photos, tmp_path):
    file = tmp_path / "x"
    for text, message in (
        ("{", "damaged|not JSON|not XML"),
        ('{"a": 1}', "no list of tasks|instances|no file|not XML"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            list(read_label_maps(file, NAMES, photos, kind))
    with pytest.raises(InputError, match="there is no file"):
        list(read_label_maps(tmp_path / "none", NAMES, photos, kind))
    with pytest.raises(InputError, match="there is no format 'voc'; choose coco, cvat, label-studio, labelme"):
        list(read_label_maps(file, NAMES, photos, "voc"))


def test_commands_write_corrected_images_only(photos, tmp_path):
    folder = LabelFolder(tmp_path / "labels").prepare({"classes": NAMES})
    for image in make_images():
        folder.save(image.file.rpartition(".")[0], image.labels)
    run = CliRunner().invoke
    common = ["--photos", str(photos), "--format", "cvat"]
    file, out = str(tmp_path / "a.xml"), tmp_path / "corrected"
    done = run(app, ["export-labels", str(folder.path), *common, "--out", file, "--json"])
    assert (done.exit_code, json.loads(done.stdout)["images"]) == (0, 3), done.output
    root = et.parse(file).getroot()
    changed = next(e for e in root.iterfind("image") if e.get("name") == "c.png")
    for element in list(changed):
        changed.remove(element)
    (tmp_path / "a.xml").write_bytes(et.tostring(root))
    done = run(app, ["import-labels", file, *common, "--changed-from", str(folder.path), "--out", str(out), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["images"]) == (0, 1), done.output
    assert [p.name for p in out.rglob("*.png")] == ["c.png"]
    assert not LabelFolder(out).renumber(NAMES).load("c").any()
    done = run(app, ["import-labels", file, *common, "--out", str(out)])
    assert done.exit_code == 2
    assert "--classes classes.txt is missing" in " ".join(done.output.split())
