"""`camplug explain` and `camplug compare`: one sentence with exit code 2 for everything that goes wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from commands import refused, run
from PIL import Image
from square_commands import MODEL, MODULE, files

import camplug


def test_photographs_that_cannot_be_read(place, square):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    noise.save("cut.jpg")
    (place / "cut.jpg").write_bytes((place / "cut.jpg").read_bytes()[:2000])
    Image.new("RGB", (1, 1)).save("dot.png")
    (place / "text.png").write_text("hello")
    (place / "empty").mkdir()
    for command in ("explain", "compare"):
        assert refused(command, "missing.jpg", "-m", MODEL) == "error: there is no file 'missing.jpg'."
        assert "'cut.jpg' is damaged" in refused(command, "cut.jpg", "-m", MODEL)
        assert refused(command, "dot.png", "-m", MODEL) == "error: 'dot.png' has 1x1 pixels; a map needs at least 2x2."
        assert "'text.png' is not an image" in refused(command, "text.png", "-m", MODEL)
    assert "the folder 'empty' holds no image (.jpg" in refused("explain", "empty", "-m", MODEL)
    assert files(place) == sorted([f"{MODULE}.py", "cut.jpg", "dot.png", "text.png", square])


@pytest.mark.parametrize("command", ["explain", "compare"])
def test_classes_that_cannot_be_found(place, square, command):
    def says(name, *more, model=MODEL):
        return refused(command, square, "-m", model, "-c", name, *more)

    assert says("brigth spot").startswith("error: no class is called 'brigth spot'; did you mean bright spot (0)")
    assert says("spot") == (
        "error: 'spot' fits several classes: bright spot (0), dark spot (2); give one of these names or its index."
    )
    assert "class 3 is outside the model's 3 classes; allowed are 0 to 2" in says("3")
    assert "the model has no class names" in says("bright", model=f"import:{MODULE}:WithoutNames")
    (place / "two.txt").write_text("a\nb\n")
    assert "class_names= holds 2 names, but the model has 3 classes" in says("0", "--class-names", "two.txt")
    assert "'none.txt' cannot be read" in says("0", "--class-names", "none.txt")


def test_layers_that_do_not_exist(place, square):
    says = refused("explain", square, "-m", MODEL, "--layers", "feature")
    assert "no layer named 'feature'; did you mean 'features'" in says
    for method in ("fully", "gradcam", "cam"):
        assert refused("explain", square, "-m", f"import:{MODULE}:NoLayer", "--method", method)
    assert "neither a convolution nor a transformer block" in refused(
        "explain", square, "-m", f"import:{MODULE}:NoLayer"
    )


def test_checkpoints_that_do_not_fit(place, square):
    def says(*more):
        return refused("explain", square, "-m", MODEL, "--checkpoint", "c.pt", *more)

    assert says() == "error: there is no checkpoint 'c.pt'."
    state = camplug.load_model(MODEL).state_dict()
    torch.save({**state, "fc.weight": torch.zeros(5, 2), "fc.bias": torch.zeros(5)}, "c.pt")
    assert says() == "error: 'c.pt' has 5 classes and the model 3; set the number of classes to 5."
    torch.save({"fc.weight": torch.zeros(3, 2)}, "c.pt")
    assert "'c.pt' does not fit this Bright: it lacks features.0.weight, features.0.bias (3 in all)" in says()
    (place / "c.pt").write_text("hello")
    assert "'c.pt' is not a checkpoint of plain tensors" in says()
    torch.save(camplug.load_model(MODEL), "c.pt")  # a whole pickled model
    assert "it would run code when read" in says()


@pytest.mark.parametrize("ending", ["png", "npz"])
def test_places_that_cannot_be_written(place, square, ending):
    (place / "file").write_text("kept")
    (place / f"folder.{ending}").mkdir()
    before = files(place)
    for target in (f"none/a.{ending}", f"file/a.{ending}", f"folder.{ending}"):
        assert f"'{target}' cannot be written" in refused("explain", square, "-m", MODEL, "-o", target)
        if ending == "png":
            assert f"'{target}' cannot be written" in refused(
                "compare", square, "-m", MODEL, "--methods", "cam", "-o", target
            )
    assert "cannot be made" in refused("explain", square, square, "-m", MODEL, "-o", "file")
    assert files(place) == before


def test_endings_that_cannot_be_written(place, square):
    assert ".npz (numbers)" in refused("explain", square, "-m", MODEL, "-o", "a.txt")
    assert ".npz (numbers)" in refused("explain", square, "-m", MODEL, "-o", "a")
    assert "pictures are written as .png" in refused("compare", square, "-m", MODEL, "--methods", "cam", "-o", "a.npz")
    assert "pictures are written as .png" in refused("compare", square, "-m", MODEL, "--methods", "cam", "-o", "a.fli")


def test_unknown_methods_models_and_devices(place, square):
    says = refused("explain", square, "-m", MODEL, "--method", "gradcamm")
    assert "there is no method 'gradcamm'; available are ablationcam, cam, " in says
    assert "Did you mean 'gradcam'?" in says
    assert "there is no method 'typo'" in refused("compare", square, "-m", MODEL, "--methods", "cam,typo")
    assert "no method matches ','" in refused("compare", square, "-m", MODEL, "--methods", ",")
    assert "did you mean" in refused("explain", square, "-m", "timm:resnet5O")
    assert "'resnet50' names no model; allowed are demo" in refused("explain", square, "-m", "resnet50")
    assert "could not be imported" in refused("explain", square, "-m", "import:camplug_test_none:make")
    for device in ("gpu", "cuda:99", "meta", ""):
        assert f"the device {device!r} is not available here; there is: cpu" in refused(
            "explain", square, "-m", MODEL, "--device", device
        )


def test_debug_shows_where(place, monkeypatch):
    monkeypatch.setenv("CAMPLUG_DEBUG", "1")
    result = run("explain", "missing.jpg", "-m", MODEL)
    assert isinstance(result.exception, camplug.InputError)


def test_errors_of_a_model_are_one_sentence_and_leave_the_other_photographs(place, square):
    code = (
        f"import {MODULE}\n"
        f"class Wide({MODULE}.{MODEL.rpartition(':')[2]}):\n"
        "    def forward(self, x):\n"
        "        if x.shape[2] > x.shape[3]:\n"
        "            raise KeyError('wide photographs only')\n"
        "        return super().forward(x)\n"
    )
    (place / "picky.py").write_text(code)
    Image.open(square).resize((40, 60)).save("tall.png")
    model = ["-m", "import:picky:Wide"]
    alone = run("explain", "tall.png", *model)
    assert (alone.exit_code, alone.stderr) == (
        2,
        "error: KeyError: 'wide photographs only' (CAMPLUG_DEBUG=1 shows where)\n",
    )
    Image.open(square).resize((60, 40)).save("a.png")
    ended = run("explain", "a.png", "tall.png", *model, "--out", "maps")
    assert ended.exit_code == 1
    assert "skipped" in ended.stderr
    assert "wide photographs only" in ended.stderr
    assert (place / "maps" / "a.png").is_file()


def test_class_names_with_a_byte_order_mark(place, square):
    (place / "names.txt").write_bytes("\ufeffcat\ndog\nbird\n".encode())
    assert run("explain", square, "-m", MODEL, "-c", "cat", "--class-names", "names.txt").exit_code == 0
