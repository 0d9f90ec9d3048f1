"""`camplug seeds`: the same bytes after a kill and in shares, options from a file, and one sentence for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from commands import good, refused, run
from contents import contents, marks
from forked import start
from PIL import Image

import camplug
from camplug.wsss.data import Scenes
from camplug.wsss.seeds import SeedFolder, make_seeds

OWN = '''
import glob
import os
import time

import torch
from torch import nn


class Tiny(nn.Module):
    pretrained_cfg = {"input_size": (3, 48, 48), "mean": (0.5,) * 3, "std": (0.25,) * 3}

    def __init__(self, num_classes=6):
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(self.features(x).relu().mean((2, 3)))


class Holding(Tiny):
    """Waits after eight images as long as there is a file "hold"."""

    def forward(self, x):
        while os.path.exists("hold") and len(glob.glob("killed/*.npz")) >= 8:
            time.sleep(0.02)
        return super().forward(x)


class Slow(Tiny):
    """The second process is still at work when the first one is done."""

    def forward(self, x):
        if os.environ.get("RANK") == "1" and not glob.glob("seeds/1.npz"):
            while not glob.glob("seeds/4.npz"):
                time.sleep(0.02)
            time.sleep(4)
        return super().forward(x)
'''

MODULE = "camplug_test_seeds_models"
MODEL = f"import:{MODULE}:Tiny"
PLAIN = ("--data", "scenes:6", "-m", MODEL, "--explainer", "GradCAM('features.2')")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working folder with a module of models, and no torchrun around."""
    (tmp_path / f"{MODULE}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CAMPLUG_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    sys.modules.pop(MODULE, None)


def own_data(place, broken=()):
    """Six photographs of two classes; the named ones are cut off."""
    (place / "mine" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        file = place / "mine" / "images" / f"{i}.jpg"
        Image.fromarray(rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)).save(file)
        if i in broken:
            (place / f"{i}.jpg").write_bytes(file.read_bytes())
            file.write_bytes(file.read_bytes()[:300])
    labels = {f"{i}.jpg": [("cat", "dog")[i % 2]] for i in range(6)}
    (place / "mine" / "labels.json").write_text(json.dumps(labels))


# ---- what is made


def test_the_command_line_makes_what_the_library_makes(place):
    result = good("seeds", *PLAIN, "-o", "a", "--dtype", "float16", "--scale", "0.5", "--json")
    numbers = json.loads(result.stdout)
    assert (numbers["folder"], numbers["made"], numbers["found"], numbers["broken"]) == ("a", 6, 0, [])
    model = camplug.load_model(MODEL)
    folder = SeedFolder(place / "b")
    make_seeds(camplug.GradCAM(model, "features.2"), Scenes(6), folder, dtype="float16", scale=0.5)
    assert contents(place / "a") == contents(place / "b")
    assert len(contents(place / "a")) == 6
    settings = SeedFolder("a").read_settings()
    assert settings["explainer"] == "GradCAM('features.2')"
    assert (settings["dtype"], settings["scale"], settings["classes"]) == ("float16", 0.5, list(Scenes(6).classes))
    size = sum(p.stat().st_size for p in (place / "a").glob("*.npz"))
    assert numbers["megabytes_per_1000_images"] == pytest.approx(size / 6 * 1000 / 1e6)
    for name in Scenes(6).ids[1:4]:
        (place / "a" / f"{name}.npz").unlink()
    result = good("seeds", *PLAIN, "-o", "a", "--dtype", "float16", "--scale", "0.5", "--batch", "3", "--json")
    numbers = json.loads(result.stdout)
    assert (numbers["made"], numbers["found"], numbers["broken"]) == (3, 3, [])  # the batch is no other setting
    for name in Scenes(6).ids:
        apart = SeedFolder("a").load(name).maps.astype(float) - folder.load(name).maps.astype(float)
        assert np.abs(apart).max() <= 2**-11  # one step of float16 below 1


def test_a_second_run_makes_nothing(place):
    assert "seeds: 6 seeds made, 0 were there; " in good("seeds", *PLAIN).stdout
    before = marks(place / "seeds")
    again = good("seeds", *PLAIN)
    assert again.stdout == "seeds: 0 seeds made, 6 were there\n"
    assert again.stderr == ""
    assert marks(place / "seeds") == before


def test_the_size_that_the_model_sees(place):
    good("seeds", *PLAIN, "-o", "a")
    good("seeds", *PLAIN, "-o", "b", "--long-side", "80")
    good("seeds", *PLAIN, "-o", "c", "--mean", "0.3", "--std", "0.5")
    assert SeedFolder("b").read_settings()["long_side"] == 80
    maps = [SeedFolder(name).load("scene0_000000") for name in "abc"]
    assert {m.maps.shape[1:] for m in maps} == {(96, 96)}
    assert not np.array_equal(maps[0].maps, maps[1].maps)
    assert not np.array_equal(maps[0].logits, maps[2].logits)


# ---- killed, and in shares


def test_killed_in_the_middle_and_run_again(place):
    options = ("--data", "scenes:12", "-m", f"import:{MODULE}:Holding", "--explainer", "FullyCAM(channel_norm=False)")
    good("seeds", *options, "-o", "whole")
    (place / "hold").touch()
    process = start("seeds", *options, "-o", "killed").process
    try:
        while len(list((place / "killed").glob("*.npz"))) < 3:
            assert process.is_alive(), "it ended by itself"
            time.sleep(0.005)
    finally:
        process.kill()
        process.join()
    (place / "hold").unlink()
    before, whole = marks(place / "killed"), contents(place / "whole")
    assert 3 <= len(before) <= 8
    assert contents(place / "killed").items() <= whole.items()  # whatever has a seed's name is whole
    (place / "killed" / "scene0_000011.npz.4711.part").write_bytes(b"PK")  # had it been killed while writing
    numbers = json.loads(good("seeds", *options, "-o", "killed", "--json").stdout)
    assert (numbers["made"], numbers["found"]) == (12 - len(before), len(before))
    assert contents(place / "killed") == whole
    assert len(whole) == 12
    assert marks(place / "killed").items() >= before.items()
    assert list((place / "killed").glob("*.part")) == []


def test_two_shares_give_the_same_bytes(place, monkeypatch):
    good("seeds", *PLAIN, "-o", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        result = good("seeds", *PLAIN, "-o", "two")
        assert f"two (share {int(rank) + 1} of 2): 3 seeds made" in result.stdout
    assert contents(place / "one") == contents(place / "two")


@pytest.mark.parametrize("rank,world", [("2", "2"), ("-1", "2"), ("1", None), ("a", "2"), ("0", "0"), ("0", "")])
def test_ranks_that_do_not_fit(place, monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    says = refused("seeds", *PLAIN)
    assert f"RANK={rank!r} and WORLD_SIZE={world!r} do not fit together" in says
    assert not (place / "seeds").exists()


@pytest.mark.slow
def test_torchrun(place):
    """The first process meets a broken image and is done early; torchrun must not stop the second one for it."""
    own_data(place, broken=[0])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "camplug",
         "seeds", "--data", "mine", "-m", f"import:{MODULE}:Slow", "--num-classes", "2"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "share 1 of 2): 2 seeds made" in done.stdout
    assert "share 2 of 2): 3 seeds made" in done.stdout
    assert "mine/images/0.jpg" in done.stderr
    assert sorted(contents(place / "seeds")) == [f"{i}.npz" for i in range(1, 6)]


# ---- broken images


def test_broken_images_are_listed_and_repaired(place):
    own_data(place, broken=[0, 3])
    options = ("seeds", "--data", "mine", "-m", MODEL, "--num-classes", "2")
    result = run(*options)
    assert result.exit_code == 1
    assert "4 seeds made" in result.stdout
    lines = result.stderr.splitlines()
    assert [line.partition(" is ")[0] for line in lines] == [f"skipped: 'mine/images/{i}.jpg'" for i in (0, 3)]
    assert "Traceback" not in result.output
    before = marks(place / "seeds")
    again = run(*options, "--json")
    assert again.exit_code == 1
    assert [b["image"] for b in json.loads(again.stdout)["broken"]] == ["0", "3"]
    for i in (0, 3):
        (place / "mine" / "images" / f"{i}.jpg").write_bytes((place / f"{i}.jpg").read_bytes())
    numbers = json.loads(good(*options, "--json").stdout)
    assert (numbers["made"], numbers["found"], numbers["broken"]) == (2, 4, [])
    assert marks(place / "seeds").items() >= before.items()


# ---- options from a file


@pytest.mark.parametrize("ending", ["toml", "yaml", "yml"])
def test_options_from_a_file(place, ending):
    given = {"data": "scenes:6", "model": MODEL, "explainer": "GradCAM('features.2')", "out": "a", "scale": 0.5}
    given |= {"long-side": 64, "dtype": "float16"}
    lines = [f"{k} = {json.dumps(v)}" if ending == "toml" else f"{k}: {json.dumps(v)}" for k, v in given.items()]
    (place / f"c.{ending}").write_text("\n".join(lines))
    good("seeds", "--config", f"c.{ending}")
    good("seeds", *PLAIN, "-o", "b", "--scale", "0.5", "--long-side", "64", "--dtype", "float16")
    assert contents(place / "a") == contents(place / "b")
    assert SeedFolder("a").read_settings() == SeedFolder("b").read_settings()
    good("seeds", "--config", f"c.{ending}", "--scale", "1", "--out", "c")  # the command line comes first
    assert SeedFolder("c").load("scene0_000000").maps.shape[1:] == (96, 96)


def test_files_of_options_that_cannot_be_used(place):
    def says(text, name="c.toml"):
        (place / name).write_text(text)
        return refused("seeds", "--config", name)

    assert "'c.toml' has an unknown option 'explainers'; allowed are data, split, explainer" in says("explainers = 'a'")
    assert "'c.toml': long_side = 'wide' cannot be read; give a whole number or none." in says("long-side = 'wide'")
    assert "scale = True cannot be read; give a number." in says("scale = true")
    assert "data = 7 cannot be read; give a text or none." in says("data: 7", "c.yaml")
    assert "is not TOML (Invalid value" in says("data = ")
    assert "is not YAML (mapping values are not allowed" in says("data: a: b", "c.yaml")
    assert "'c.yaml' holds no options" in says("- data", "c.yaml")
    assert "'c.yaml' holds no options" in says("", "c.yaml")
    assert "'c.json': a configuration is a .toml, .yaml or .yml file." in says("{}", "c.json")
    assert "there is no configuration file 'none.toml' that can be read" in refused("seeds", "--config", "none.toml")
    assert "--data is missing" in says("")
    assert "num_classes = 0; give at least 1" in says("data = 'scenes:2'\nnum_classes = 0")
    assert "a long side of 0 pixels" in says(f"data = 'scenes:2'\nmodel = '{MODEL}'\nlong_side = 0")


# ---- everything that goes wrong


def test_other_settings_into_the_same_folder(place):
    good("seeds", *PLAIN)
    before = marks(place / "seeds")
    says = refused("seeds", *PLAIN, "--scale", "0.5", "--dtype", "float16")
    assert "'seeds' holds seeds of other settings: dtype, scale differ (dtype: 'uint8' there, 'float16' now)" in says
    weights = camplug.load_model(MODEL).state_dict()
    torch.save(weights, "c.pt")
    assert "0 seeds made, 6 were there" in good("seeds", *PLAIN, "--checkpoint", "c.pt").stdout  # the same weights
    torch.save({name: tensor + 1e-3 for name, tensor in weights.items()}, "c.pt")
    says = refused("seeds", *PLAIN, "--checkpoint", "c.pt")
    assert "of other settings: the weights of --model differ; --overwrite makes it anew" in says
    own_data(place)
    other = refused("seeds", "--data", "mine", *PLAIN[2:], "--num-classes", "2")
    assert "classes, num_classes, the weights of --model differ (classes: [" in other
    assert marks(place / "seeds") == before


@pytest.mark.parametrize(
    "options,says",
    [
        (("--explainer", "MultiView(FullyCAMM)"), "there is no method 'FullyCAMM'; available are "),
        (("--explainer", "MultiView(FullyCAM"), "'MultiView(FullyCAM' cannot be read; write for instance"),
        (("--explainer", "multiview"), "It is a wrapper; write what it wraps: multiview(FullyCAM)."),
        (("--explainer", "GradCAM('none')"), "no layer named 'none'"),
        (("--scale", "0"), "scale=0.0; give more than 0 and at most 1."),
        (("--dtype", "float64"), "dtype='float64'; allowed are 'uint8', 'float16'."),
        (("--num-classes", "7"), "the model has 7 classes and the data has 6 (striped disc, dotted square, ringed"),
        (("--data", "scenes:none"), "'scenes:none' is not understood"),
        (("--data", "nowhere"), "'nowhere' is missing; give the data set's folder."),
        (("--split", "train"), "scenes has no splits"),
        (("-m", "resnet50"), "'resnet50' names no model"),
        (("--device", "gpu"), "the device 'gpu' is not available here"),
        (("--checkpoint", "none.pt"), "there is no checkpoint 'none.pt'."),
    ],
)
def test_bad_input(place, options, says):
    assert says in refused("seeds", *PLAIN, *options)
    assert not (place / "seeds" / "settings.json").exists()
    good("seeds", *PLAIN)  # nothing stands in the way of the right command


def test_a_place_that_cannot_be_written(place):
    (place / "file").write_text("kept")
    assert "the folder 'file/seeds' cannot be made (Not a directory)" in refused("seeds", *PLAIN, "-o", "file/seeds")
    assert "--data is missing" in refused("seeds")


# ---- photographs without labels


def shots(place, count=3):
    """Photographs of one colour each, in a folder with a subfolder."""
    for i in range(count):
        file = place / "shots" / ("deep" if i else "") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (40 * i, 255 - 90 * i, 120)).save(file)


def test_seeds_of_predicted_classes(place):
    shots(place)
    options = ("-m", MODEL, "--explainer", "GradCAM('features.2')", "--labels", "predicted")
    good("seeds", "--data", "shots", *options, "-o", "a")
    folder, model = SeedFolder("a"), camplug.load_model(MODEL)
    settings = folder.read_settings()
    assert settings["classes"] == [f"class {c}" for c in range(6)]
    assert (settings["labels"], settings["probability"]) == ("predicted", 0.5)
    for name in ("0", "deep/1", "deep/2"):
        photo = Image.open(place / "shots" / f"{name}.png")
        one = camplug.GradCAM(model, "features.2").explain(photo)
        seed = folder.load(name)
        assert seed.classes == (one.classes[0],)  # a softmax over six: none other is above .5
        np.testing.assert_allclose(seed.logits, one.logits.numpy(), atol=1e-6)
        np.testing.assert_allclose(seed.to_full_size()[0], one.maps[0].numpy(), atol=1 / 255 + 1e-6)
    good("seeds", "--data", "shots/0.png", *options, "--probability", "0", "-o", "b")
    assert SeedFolder("b").load("0").classes == tuple(range(6))
    good("seeds", "--data", "scenes:2", *options, "-o", "c")
    assert SeedFolder("c").read_settings()["classes"] == list(Scenes(2).classes)


def test_pseudo_labels_of_predicted_classes(place):
    shots(place)
    good("seeds", "--data", "shots", "-m", MODEL, "--explainer", "GradCAM('features.2')", "--labels", "predicted")
    good("pseudo-labels", "seeds", "--data", "shots", "--threshold", "0.5", "--crf", "none", "-o", "labels")
    (c,) = SeedFolder("seeds").load("deep/1").classes
    labels = np.asarray(Image.open("labels/deep/1.png"))
    assert set(np.unique(labels)) <= {0, c + 1}
    assert (labels == c + 1).sum() == (SeedFolder("seeds").load("deep/1").to_full_size()[0] > 0.5).sum() > 0
    short = ("--data", "shots", "-m", MODEL, "--epochs", "1", "--batch", "2", "--crop", "32", "--device", "cpu")
    good("train", "deeplab", "labels", *short, "--width", "4", "--output-stride", "none", "-o", "net")
    report = json.loads(good("segment", "shots", "--weights", "net/deeplab.pt", "-o", "found", "--json").stdout)
    assert report["made"] == 3


def test_photographs_without_labels_need_predicted_classes(place):
    shots(place)
    says = refused("seeds", "--data", "photos:shots", "-m", MODEL)
    assert "the data has no image labels; explain the predicted classes: --labels predicted." in says
    assert "Photographs without labels are 'photos:shots'" in refused("seeds", "--data", "shots", "-m", MODEL)
    says = refused("seeds", "--data", "shots", "-m", MODEL, "--probability", "0.2")
    assert "--probability has no effect on given labels" in says
    assert "allowed are given, predicted" in refused("seeds", "--data", "shots", "-m", MODEL, "--labels", "none")
    says = refused("train", "classifier", "--data", "photos:shots", "-m", MODEL)
    assert "the data has no image labels, which this training learns from; give data with labels." in says


def test_predicted_classes_of_a_model_with_other_classes_than_the_data(place):
    says = refused("seeds", *PLAIN, "--num-classes", "4", "--labels", "predicted", "-o", "a")
    assert "the model has 4 classes and the data has 6" in says
