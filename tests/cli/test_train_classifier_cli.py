"""`camplug train classifier|atm|rpnet|fpr`: from labels to a classifier's file that the other commands take."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trainable
from commands import good, refused, run
from PIL import Image

from camplug.settings import find_fields
from camplug.wsss.atm import ATM
from camplug.wsss.class_names import RenumberedData
from camplug.wsss.classifier import LearningSettings, SpanSettings, load_classifier
from camplug.wsss.data import Scenes, open_data
from camplug.wsss.fpr import FPR
from camplug.wsss.rpnet import RPNet
from camplug.wsss.seeds import score_labels

MODULE = "camplug_test_classifier_models"
MODEL = f"import:{MODULE}:Net"
SHORT = ("--epochs", "1", "--batch", "4", "--crop", "48", "--sides", "48,48", "--cut", "none", "--lr", "0.01")
DATA = ("--data", "scenes:8", "--device", "cpu")
OWN = {
    "classifier": ("--focal", "2"),
    "atm": ("--width", "4", "--no-enhance"),
    "rpnet": ("--width", "8", "--stages", "last", "--scales", "1"),
    "fpr": ("--clusters", "2", "--groups", "none"),
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder with a module of models, and no torchrun around."""
    (tmp_path / f"{MODULE}.py").write_text(Path(trainable.__file__).read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CAMPLUG_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    sys.modules.pop(MODULE, None)


def started(out="start"):
    good("train", "classifier", *DATA, *SHORT, "-m", MODEL, "--out", out)
    return f"{out}/classifier.pt"


def test_the_seed_is_of_the_first_weights_too():
    """A model that begins at random is the same in every process that is given the same seed, and another in others."""
    found = {}
    for out, seed in (("once", 3), ("again", 3), ("other", 4)):
        torch.manual_seed(len(found))
        good("train", "classifier", *DATA, *SHORT, "-m", MODEL, "--seed", str(seed), "--out", out)
        found[out] = torch.cat([p.flatten() for p in load_classifier(f"{out}/classifier.pt").parameters()])
    assert torch.equal(found["once"], found["again"])
    assert not torch.equal(found["once"], found["other"])


def test_every_method_from_labels_to_seeds():
    start = started()
    for method, own in OWN.items():
        model = start if method == "fpr" else MODEL
        said = json.loads(good("train", method, *DATA, *SHORT, "-m", model, *own, "--json").stdout)
        assert said["file"] == str(Path("runs") / method / "classifier.pt")
        assert said["images"] == 8
        assert said["losses"]["classification"] > 0
        found = load_classifier(said["file"])
        kept = json.loads((Path("runs") / method / "settings.json").read_text())
        assert kept["method"]["name"] == method
        assert found.classes == kept["classes"]
        good("seeds", *DATA, "-m", said["file"], "--explainer", "CAM", "--out", f"seeds_{method}")
        assert len(list(Path(f"seeds_{method}").glob("*.npz"))) == 8
        # once more: nothing is left to do
        again = json.loads(good("train", method, *DATA, *SHORT, "-m", model, *own, "--json").stdout)
        assert again["losses"] == {}
    report = json.loads(good("evaluate", "seeds_atm", "--data", "scenes:8", "--json").stdout)
    assert 0 < report["miou"]["present"] < 1


def folder_of_scenes(root, order):
    """Three classes of scenes as a folder, whose classes.txt has them in an order."""
    data = Scenes(8, (48, 48), classes=3)
    data = RenumberedData(data, [data.classes[c] for c in order])
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = ["image,labels"]
    for i, name in enumerate(data.ids):
        data.photo(i).save(root / "images" / f"{name}.png")
        Image.fromarray(data.mask(i)).save(root / "masks" / f"{name}.png")
        rows.append(f"{name}.png," + ";".join(data.classes[c] for c in data.labels(i)))
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    (root / "classes.txt").write_text("\n".join(data.classes))
    return f"folder:{root}"


def test_the_order_of_the_classes_changes_no_figure(tmp_path):
    one, two = folder_of_scenes(tmp_path / "a", (0, 1, 2)), folder_of_scenes(tmp_path / "b", (2, 0, 1))
    good("train", "classifier", "--data", one, *SHORT, "-m", MODEL, "--epochs", "4", "--out", "start")
    found = {}
    for key, made_on, scored_on in (("a", one, one), ("b", two, two), ("ab", one, two)):
        good("seeds", "--data", made_on, "-m", "start/classifier.pt", "--explainer", "CAM", "--out", f"seeds_{key}")
        said = json.loads(good("evaluate", f"seeds_{key}", "--data", scored_on, "--json").stdout)
        found[key] = {name: row["iou"] for name, row in said["per_class"].items()}
        words = ("pseudo-labels", f"seeds_{key}", "--data", scored_on, "--threshold", "0.3", "--crf", "none")
        good(*words, "--out", f"labels_{key}")
        matrix, broken = score_labels(Path(f"labels_{key}"), open_data(one))
        assert broken == []
        found[f"labels {key}"] = matrix.matrix.tolist()
    for key in ("b", "ab"):
        assert found[key] == pytest.approx(found["a"], abs=2e-3)  # where maps are equal the first class wins
        assert np.abs(np.subtract(found[f"labels {key}"], found["labels a"])).sum() <= 60
    text = (tmp_path / "b" / "classes.txt").read_text()
    (tmp_path / "b" / "classes.txt").write_text(text.replace("dotted square", "dotted cube"))
    csv = (tmp_path / "b" / "labels.csv").read_text()
    (tmp_path / "b" / "labels.csv").write_text(csv.replace("dotted square", "dotted cube"))
    for words in (
        ("seeds", "-m", "start/classifier.pt", "--out", "s"),
        ("evaluate", "seeds_a"),
        ("pseudo-labels", "seeds_a", "--threshold", "0.3", "--out", "l"),
        ("train", "irn", "seeds_a", "-m", "start/classifier.pt", "--out", "i"),
        ("train", "fpr", "-m", "start/classifier.pt", *SHORT, *OWN["fpr"], "--out", "f"),
        ("train", "deeplab", "labels_a", "-m", "start/classifier.pt", "--out", "d"),
    ):
        assert "has no class 'dotted cube', which the data has; classes are matched by name" in refused(
            *words, "--data", two
        )


def test_explain_prints_the_names_of_the_classes(tmp_path):
    file = started()
    Image.new("RGB", (48, 48), "red").save("photo.png")
    said = json.loads(good("explain", "photo.png", "-m", file, "-c", "dotted square", "--json").stdout)
    assert said["images"][0]["explained"][0]["name"] == "dotted square"


def test_options_of_a_file_and_of_the_command_line():
    Path("config.yaml").write_text(
        "data: scenes:8\ndevice: cpu\nmodel: " + MODEL + "\nepochs: 1\nbatch: 4\ncrop: 48\nsides: [40, 56]\n"
        "cut: none\nlr: 1e-2\nfum: false\nenhanced: [1.2, 10]\n"
    )
    good("train", "atm", "--config", "config.yaml", "--crop", "40", "--fum", "--width", "4")
    kept = json.loads(Path("runs/atm/settings.json").read_text())
    assert kept["span"] == {"epochs": 1, "batch": 4, "crop": 40, "sides": [40, 56], "seed": 0}
    assert kept["method"]["fum"] is True
    assert kept["method"]["enhanced"] == [1.2, 10.0]
    assert kept["learning"]["cut"] is None
    assert kept["learning"]["schedule"]["lr"] == 0.01


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("classifier",), "--data is missing"),
        (("classifier", *DATA, "--preset", "paper"), "preset='paper'; allowed are irn, modern"),
        (("classifier", *DATA, "--sides", "1"), "sides = '1' cannot be read; give 2 numbers separated by commas."),
        (("classifier", *DATA, "--sides", "a,b"), "sides = 'a,b' cannot be read"),
        (("classifier", *DATA, "--epochs", "0"), "epochs=0; give at least 1."),
        (("classifier", *DATA, "--workers", "-1"), "--workers -1; give 0 or more."),
        (("classifier", *DATA, "--head", "old"), "head='old'; allowed are keep, new or none."),
        (("classifier", *DATA, "--keep", "best", "-m", MODEL), "keep='best' chooses by validation images"),
        (("classifier", *DATA, "-m", MODEL, *SHORT, "--cut", "layer9"), "cut 'layer9': this Net has no layer named"),
        (("classifier", *DATA, "-m", MODEL, *SHORT, "--batch", "9"), "8 images do not fill a batch of 9"),
        (("fpr", *DATA, "-m", MODEL), "no head that averages a map and weighs it, and the data set 6 classes"),
        (("rpnet", *DATA, "-m", MODEL, "--images", "5"), "images=5"),
        (("rpnet", *DATA, "-m", MODEL, *SHORT, "--images", "3"), "batch=4: a batch holds groups of 3 images"),
        (("classifier", *DATA, "-m", "runs/none.pt"), "there is no file 'runs/none.pt'"),
    ],
)
def test_refusals(words, says):
    assert says in " ".join(refused("train", *words).split())
    assert not Path("runs/classifier/settings.json").exists()


def test_unknown_options_in_a_file_are_named_with_the_nearest():
    Path("config.toml").write_text("epoch = 3\n")
    said = refused("train", "classifier", *DATA, "--config", "config.toml")
    assert "unknown option 'epoch'; allowed are data, split, " in " ".join(said.split())
    assert said.endswith("; did you mean 'epochs'?")
    Path("config.toml").write_text("fum = 1\n")
    said = refused("train", "atm", *DATA, "--config", "config.toml")
    assert "fum = 1 cannot be read; give true or false." in " ".join(said.split())


def test_a_checkpoint_of_other_classes_is_refused():
    torch.save({**trainable.net().state_dict()}, "own.pth")
    said = refused(
        "train", "classifier", *DATA, "-m", "timm:resnet10t", "--num-classes", "6", "--checkpoint", "own.pth"
    )
    assert "does not fit" in said
    import timm

    torch.save(timm.create_model("resnet10t", num_classes=4).state_dict(), "four.pth")
    said = refused("train", "fpr", *DATA, "-m", "timm:resnet10t", "--num-classes", "4", "--checkpoint", "four.pth")
    assert "the model has a head of 4 classes, and the data set 6 classes" in " ".join(said.split())
    said = refused("train", "fpr", *DATA, "-m", "timm:resnet10t", "--num-classes", "6", "--checkpoint", "four.pth")
    assert "has 4 classes and the model 6; set the number of classes to 4" in " ".join(said.split())


def test_every_option_has_a_help():
    for method in OWN:
        said = run("train", method, "--help").output
        assert "--crop" in said
    for settings in (SpanSettings(), LearningSettings(), ATM(), RPNet(), FPR()):
        for name, entry in find_fields(settings).items():
            assert len(entry.help) > 10, (settings, name)


def shots(place, count, names=("cat", "dog")):
    """A folder of photographs, with two classes in turn."""
    (place / "mine/images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(place / f"mine/images/{i}.png")
    rows = [f"{i}.png,{names[i % 2]}\n" for i in range(count)]
    (place / "mine/labels.csv").write_text("image,labels\n" + "".join(rows))


def test_missing_photographs_are_left_out_and_listed(place):
    shots(place, 24)
    command = ("train", "classifier", "--data", "mine", *SHORT, "-m", MODEL, "--device", "cpu", "--out")
    (place / "mine/images/3.png").unlink()
    told = run(*command, "one", "--json")
    assert told.exit_code == 1
    numbers = json.loads(told.stdout)
    assert (numbers["images"], [b["image"] for b in numbers["broken"]]) == (23, ["3"])
    assert "skipped: there is no file 'mine/images/3.png'" in told.stderr
    for i in range(6):
        (place / f"mine/images/{i}.png").unlink(missing_ok=True)
    says = refused(*command, "many")
    assert "6 of 24 images cannot be read, more than 5%: there is no file 'mine/images/0.png'; there is no file" in says
    assert "--allow-missing" in says
    assert not (place / "many").exists()
    told = run(*command, "many", "--allow-missing", "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["images"] == 18


def test_a_missing_annotation_is_left_out_as_a_photograph_is(place):
    for name in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (place / "voc" / name).mkdir(parents=True)
    ids = [f"{i}" for i in range(24)]
    for i in ids:
        Image.new("RGB", (48, 48), (int(i) * 9, 0, 0)).save(place / f"voc/JPEGImages/{i}.jpg")
        name = ("cat", "dog")[int(i) % 2]
        (place / f"voc/Annotations/{i}.xml").write_text(f"<a><object><name>{name}</name></object></a>")
    (place / "voc/ImageSets/Segmentation/train.txt").write_text("\n".join(ids))
    (place / "voc/Annotations/7.xml").unlink()
    told = run("train", "classifier", "--data", "voc", *SHORT, "-m", MODEL, "--device", "cpu", "--out", "a", "--json")
    assert told.exit_code == 1
    numbers = json.loads(told.stdout)
    assert (numbers["images"], [b["image"] for b in numbers["broken"]]) == (23, ["7"])
    assert numbers["broken"][0]["error"] == "there is no annotation 'voc/Annotations/7.xml'."
