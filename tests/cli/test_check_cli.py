"""`camplug check`: what it prints and writes, and one sentence for what goes wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from commands import good, refused
from PIL import Image
from planted import draw

MODEL = "import:planted:Colours"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working folder with a photograph of a red square."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "support"), *sys.path])
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("CAMPLUG_DEBUG", raising=False)
    pixels = ((draw()[0] * 0.5 + 0.5).clamp(0, 1) * 255).round().byte()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save("red.png")
    return tmp_path


def call(*more):
    return ("check", "red.png", "--model", MODEL, *more)


def test_a_verdict_with_reasons_and_a_picture(place):
    result = good(*call("--method", "gradcam", "--layers", "0", "--class", "red"))
    lines = result.stdout.splitlines()
    assert lines[0].startswith("trustworthy: gradcam of red: ")
    assert sum(line.startswith("- ") for line in lines) >= 5
    assert lines[-1] == "written: red_gradcam_check.png"
    with Image.open("red_gradcam_check.png") as picture:
        assert picture.width > 500


def test_json_and_the_place_of_the_picture(place):
    result = good(*call("--explainer", "layercam", "--layers", "0", "-c", "0", "--out", "here.jpg", "--json"))
    told = json.loads(result.stdout)
    assert told["verdict"] == "trustworthy"
    assert told["method"] == "layercam"
    assert told["class"] == {"index": 0, "name": "red"}
    assert told["written"] == ["here.jpg"]
    assert Path("here.jpg").exists()
    assert told["numbers"]["as_good_at_random"] == 0.05


def test_the_class_without_evidence_is_told(place):
    result = good(*call("--method", "gradcam", "--layers", "1", "--class", "red", "--evidence", "negative"))
    assert result.stdout.startswith("untrustworthy")
    assert "warning: the map is empty: the method finds no negative evidence for the class." in result.stdout


def test_one_sentence_for_what_goes_wrong(place):
    assert "'pink'" in refused(*call("--class", "pink"))
    assert "no method 'nothing'" in refused(*call("--method", "nothing"))
    assert "no file" in refused("check", "missing.png", "--model", MODEL)
    assert "the photograph itself" in refused(*call("--out", "red.png"))
    assert "pictures are written" in refused(*call("--layers", "0", "--out", "numbers.npz"))
    assert not Path("numbers.npz").exists()
