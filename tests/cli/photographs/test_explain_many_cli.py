"""`camplug explain` with folders and several photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import good, refused, run
from PIL import Image
from square_commands import MODEL, MODULE, SQUARE, files, iou, photo

import camplug
from camplug.explain.explanation import Explanation


def test_a_folder_with_a_broken_file(place):
    (place / "in" / "deeper").mkdir(parents=True)
    Image.fromarray(photo()).save(place / "in" / "a.png")
    Image.fromarray(photo((80, 40, 104, 64))).save(place / "in" / "deeper" / "b.JPG", quality=95)
    (place / "in" / "broken.jpg").write_bytes((place / "in" / "deeper" / "b.JPG").read_bytes()[:300])
    (place / "in" / "notes.txt").write_text("no photograph")
    result = run("explain", "in", "-m", MODEL, "-c", "bright", "--json", "--out", "out")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    document = json.loads(result.stdout)
    assert [e["image"] for e in document["images"]] == ["in/a.png", "in/deeper/b.JPG"]
    assert [b["image"] for b in document["broken"]] == ["in/broken.jpg"]
    assert "damaged" in document["broken"][0]["error"]
    assert "skipped:" in result.stderr
    assert "in/broken.jpg" in result.stderr.replace("\n", "")
    assert sorted(p.name for p in (place / "out").iterdir()) == ["a.npz", "a.png", "b.npz", "b.png"]
    assert iou(Explanation.load("out/a.npz").mask()[0], SQUARE) > 0.8
    assert iou(Explanation.load("out/b.npz").mask()[0], (80, 40, 104, 64)) > 0.8
    table = run("explain", "in", "-m", MODEL, "-c", "bright", "--out", "out")
    assert table.exit_code == 1
    for name, entry in zip(("a.png", "b.JPG"), document["images"], strict=True):
        explained, predicted = (
            f"{row['name']} {row['probability']:.1%}" for row in (entry["explained"][0], entry["top"][0])
        )
        (row,) = [line.split("│")[1:-1] for line in table.stdout.splitlines() if name in line]
        assert [cell.strip() for cell in row] == [name, "120x80", explained, predicted]
    assert "written: out, one picture and one .npz for each of 2 images" in table.stdout


def test_a_second_run_leaves_the_pictures_of_the_first_alone(place):
    Image.fromarray(photo()).save(place / "a.png")
    for _ in range(2):
        result = run("explain", ".", "-m", MODEL, "-c", "bright", "--json", "--out", "out")
        assert result.exit_code == 0
        assert [e["image"] for e in json.loads(result.stdout)["images"]] == ["a.png"]


def test_a_model_that_fails_on_one_photograph_goes_on(place, monkeypatch):
    (place / "in").mkdir()
    for name, size in (("a.png", (120, 80)), ("b.png", (96, 80)), ("c.png", (120, 80))):
        Image.fromarray(photo(size=size)).save(place / "in" / name)
    original = camplug.FullyCAM.run

    def run_out_of_memory(self, x, *rest):
        if x.shape[3] == 48:  # b.png, its shorter side at 40
            raise RuntimeError("not enough memory")
        return original(self, x, *rest)

    monkeypatch.setattr(camplug.FullyCAM, "run", run_out_of_memory)
    result = run("explain", "in", "-m", MODEL, "-c", "bright", "--json", "--out", "out")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [e["image"] for e in document["images"]] == ["in/a.png", "in/c.png"]
    assert document["broken"] == [{"image": "in/b.png", "error": "not enough memory"}]


def test_several_files_one_of_them_missing(place, square):
    result = run("explain", square, "missing.png", "-m", MODEL, "-c", "bright")
    assert result.exit_code == 1, result.stderr
    assert "missing.png" in result.stderr
    assert sorted(p.name for p in (place / "camplug_maps").iterdir()) == ["square.npz", "square.png"]


def test_equal_names_do_not_overwrite_each_other(place):
    boxes = {}
    for i, folder in enumerate(("1/x/y/z", "2/x/y/z", "1")):  # alike in their last folders
        (place / "in" / folder).mkdir(parents=True, exist_ok=True)
        boxes[i] = (10 + 30 * i, 20, 34 + 30 * i, 44)
        Image.fromarray(photo(boxes[i])).save(place / "in" / folder / "a.png")
    Image.fromarray(photo()).save(place / "in" / "1" / "a.bmp")
    result = good("explain", "in", "-m", MODEL, "-c", "bright", "--json", "-o", "out")
    entries = json.loads(result.stdout)["images"]
    written = [w for e in entries for w in e["written"]]
    assert len(written) == len(set(written)) == 8
    for entry in entries:
        numbers = Explanation.load(next(w for w in entry["written"] if w.endswith(".npz")))
        np.testing.assert_array_equal(np.asarray(numbers.image), np.asarray(Image.open(entry["image"])))


def test_a_wrong_class_is_told_once_for_a_whole_folder(place, square):
    Image.fromarray(photo()).save(place / "second.png")
    assert "no class is called 'nothing'" in refused("explain", square, "second.png", "-m", MODEL, "-c", "nothing")


def test_photographs_are_never_overwritten(place, square):
    before = (place / square).read_bytes()
    assert "is the photograph itself" in refused("explain", square, "-m", MODEL, "-o", square)
    assert "is the photograph itself" in refused("explain", ".", "-m", MODEL, "-o", ".")
    assert "is the photograph itself" in refused("compare", square, "-m", MODEL, "-o", square)
    assert (place / square).read_bytes() == before
    assert files(place) == [f"{MODULE}.py", square]


@pytest.mark.parametrize(("option", "value"), [("--colors", "nope"), ("--opacity", "3"), ("--contour", "0")])
def test_a_look_that_does_not_exist_is_refused_before_the_first_photograph(place, square, option, value):
    Path("photos").mkdir()
    Path(square).rename("photos/square.png")
    refused("explain", "photos", "--model", MODEL, option, value, "--out", "maps")
    assert not Path("maps").exists()
