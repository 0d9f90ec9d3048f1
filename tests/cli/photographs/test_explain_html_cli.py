"""`camplug explain --html`: the gallery of a folder."""

from __future__ import annotations

import json

import pytest
from commands import good, refused, run
from PIL import Image
from square_commands import MODEL, files, photo

import camplug
from camplug.show.gallery import encode_picture


@pytest.fixture
def folder(place):
    (place / "in" / "deeper").mkdir(parents=True)
    Image.fromarray(photo()).save(place / "in" / "a.png")
    Image.fromarray(photo((80, 40, 104, 64))).save(place / "in" / "deeper" / "b.png")
    return place / "in"


def test_only_the_gallery_is_written(place, folder):
    before = files(place)
    result = good("explain", "in", "-m", MODEL, "-c", "bright", "--html", "web/all.html", "--contour", "0.5")
    assert sorted(set(files(place)) - set(before)) == ["web/all.html"]
    assert result.stdout.endswith("gallery: web/all.html\n")
    page = (place / "web" / "all.html").read_text(encoding="utf-8")
    explainer = camplug.FullyCAM(camplug.load_model(MODEL))
    for name in ("a.png", "deeper/b.png"):
        overlay = explainer.explain(folder / name, "bright spot").overlay(contour=0.5, bar=False)
        assert f'data-name="{name}"' in page
        assert encode_picture(overlay) in page


def test_pictures_come_with_out_and_the_broken_are_named(place, folder):
    (folder / "broken.png").write_bytes(b"no picture")
    result = run("explain", "in", "-m", MODEL, "-c", "bright", "--html", "all.html", "--out", "maps", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["gallery"] == "all.html"
    assert [entry["written"] for entry in document["images"]] == [
        ["maps/a.png", "maps/a.npz"],
        ["maps/b.png", "maps/b.npz"],
    ]
    assert "in/broken.png&#39; is not an image" in (place / "all.html").read_text(encoding="utf-8")


def test_one_photograph_is_a_gallery_too(place, folder):
    document = json.loads(good("explain", "in/a.png", "-m", MODEL, "--html", "one.html", "--json").stdout)
    assert document["images"][0]["written"] == []
    assert 'data-name="a.png"' in (place / "one.html").read_text(encoding="utf-8")


def test_an_interrupted_gallery_holds_what_is_done(place, folder, monkeypatch):
    original = camplug.FullyCAM.explain

    def stop(self, image, classes=None):
        if image.name == "b.png":
            raise KeyboardInterrupt
        return original(self, image, classes)

    monkeypatch.setattr(camplug.FullyCAM, "explain", stop)
    assert run("explain", "in", "-m", MODEL, "--html", "all.html").exit_code != 0
    assert 'data-name="a.png"' in (place / "all.html").read_text(encoding="utf-8")


def test_refusals(place, folder):
    assert "give a name that ends with .html" in refused("explain", "in", "-m", MODEL, "--html", "all.png")
    assert "cannot be made" in refused("explain", "in", "-m", MODEL, "--html", "in/a.png/all.html")
    assert "no class" in refused("explain", "in", "-m", MODEL, "-c", "zebra", "--html", "all.html")
    (place / "web.html").mkdir()
    assert "give a file, such as 'web.html/gallery.html'" in refused("explain", "in", "-m", MODEL, "--html", "web.html")
    assert not (place / "all.html").exists()
