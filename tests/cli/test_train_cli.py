"""`camplug train irn` and `camplug train affinitynet`: from seeds to heads, stopped and going on, and bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import heads
import numpy as np
import pytest
import torch
from commands import good, refused, run
from heads import photos, random_seeds
from PIL import Image

from camplug.wsss.affinitynet import AffinityNetHeadSettings
from camplug.wsss.affinitynet.checkpoint import load_affinitynet
from camplug.wsss.data import Scenes
from camplug.wsss.data.masks import read_mask
from camplug.wsss.irn import IRNHeadSettings, IRNSettings, train_irn
from camplug.wsss.irn.checkpoint import load_irn
from camplug.wsss.seeds import SeedFolder, compute_otsu_thresholds, count_strongest_values
from camplug.wsss.train import LabelCrops, ProgressCallback, ScheduleSettings, TrainSettings
from camplug.wsss.train.heads import load_heads

MODULE = "camplug_test_train_models"
MODEL = f"import:{MODULE}:Tiny"
SCENES = Scenes(8)
DATA = ("--data", "scenes:8", "-m", MODEL)
SHORT = ("--epochs", "2", "--batch", "4", "--crop", "32", "--radius", "3")
IRN = ("train", "irn", "seeds", *DATA, *SHORT, "--width", "16", "--crf", "none", "--lr", "0.01")
PSA = ("train", "affinitynet", "seeds", *DATA, *SHORT, "--width", "56", "--crf", "none")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return random_seeds(tmp_path_factory.mktemp("kept") / "seeds", SCENES).path


@pytest.fixture(autouse=True)
def place(kept, tmp_path, monkeypatch):
    """A working folder with seeds and a module of models, and no torchrun around."""
    (tmp_path / f"{MODULE}.py").write_text(Path(heads.__file__).read_text())
    (tmp_path / "seeds").symlink_to(kept)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CAMPLUG_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    sys.modules.pop(MODULE, None)


def same(one, other):
    one, other = (load_heads(file).state for file in (one, other))
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# ---- what is made


@pytest.mark.slow
def test_irn(place):
    result = good(*IRN, "--crf", "irn", "--momentum", "0.9", "--foreground", "0.7", "--background", "0.4", "-o", "a")
    lines = result.stdout.splitlines()
    assert lines[0] == "labels: 8 made, 0 were there"
    assert lines[1].startswith("training: 2 epochs of 8 images in batches of 4; last losses: affinity 0.")
    assert lines[2].startswith("mean displacement: ")
    assert lines[3:] == ["a/irn.pt: an IRNet on 4 layers"]
    assert result.stderr == ""
    # the same by the library, told by nobody
    settings = IRNSettings(
        0.7, 0.4, "irn",
        IRNHeadSettings(radius=3, width=16, schedule=ScheduleSettings(lr=0.01, momentum=0.9)),
        TrainSettings(epochs=2, batch=4, crop=32, scales=(0.5, 1.5)),
    )  # fmt: skip
    done = train_irn(heads.tiny(), SCENES, SeedFolder("seeds"), place / "b", settings)
    assert same(place / "a" / "irn.pt", done.file)
    assert (done.images, done.labels.made, done.broken) == (8, 8, [])
    assert {p.name: p.read_bytes() for p in (place / "a" / "labels").glob("*.png")} == {
        p.name: p.read_bytes() for p in (place / "b" / "labels").glob("*.png")
    }
    told = json.loads((place / "a" / "settings.json").read_text())
    assert told == json.loads((place / "b" / "settings.json").read_text())
    assert told["network"]["schedule"]["momentum"] == 0.9
    assert told["labels"]["crf"]["bilateral"] == [50, 5, 10]
    irn = load_irn(place / "a" / "irn.pt", heads.tiny())
    means = [irn.displacements(np.asarray(SCENES.photo(i))).mean((1, 2)) for i in range(8)]
    torch.testing.assert_close(torch.stack(means).mean(0), torch.zeros(2), atol=1e-5, rtol=0)  # all of one size
    assert load_heads("a/irn.pt").made_with == {"model": MODEL, "checkpoint": None, "num_classes": None}
    again = good(*IRN, "--crf", "irn", "--momentum", "0.9", "--foreground", "0.7", "--background", "0.4", "-o", "a")
    assert again.stdout == "a/irn.pt was there\n"


def test_thresholds_by_the_seeds_own_values(place):
    low, high = compute_otsu_thresholds(count_strongest_values(SeedFolder("seeds"), SCENES.ids), 3)
    result = good(*IRN, "--epochs", "1", "--foreground", "otsu", "--background", "otsu", "-o", "a")
    said = f"labels: background up to {low:.3f}, objects above {high:.3f}, by the seeds' values (Otsu)"
    assert result.stdout.splitlines()[0] == said
    Path("given.toml").write_text(f"foreground = {high}\nbackground = 'otsu'\n")
    numbers = json.loads(good(*IRN, "--epochs", "1", "--config", "given.toml", "-o", "b", "--json").stdout)
    assert numbers["label_settings"] == {"method": "irn", "background": low, "foreground": high}
    assert same("a/irn.pt", "b/irn.pt")
    numbers = json.loads(
        good(*IRN, "--epochs", "1", "--foreground", "otsu", "--background", "0.4", "-o", "c", "--json").stdout
    )
    assert numbers["label_settings"] == {"method": "irn", "background": 0.4, "foreground": high}
    (place / "labels").symlink_to(place / "a" / "labels")
    ready = ("train", "irn", "--labels", "labels", *DATA, *SHORT)
    assert "--foreground has no effect on ready-made labels" in refused(*ready, "--foreground", "otsu")


def test_affinity_and_the_labels_that_follow(place):
    numbers = json.loads(good(*PSA, "--low", "2", "--high", "9", "-o", "a", "--json").stdout)
    assert (numbers["file"], numbers["labels"], numbers["images"]) == ("a/affinitynet.pt", {"made": 8, "found": 0}, 8)
    assert numbers["losses"].keys() == {"affinity"}
    assert numbers["broken"] == []
    labels = {v for name in SCENES.ids for v in np.unique(read_mask(place / "a" / "labels" / f"{name}.png", 6))}
    assert {1, 6, 255} < labels
    net = load_affinitynet("a/affinitynet.pt", heads.tiny())
    assert net.settings == AffinityNetHeadSettings(radius=3, width=56)
    options = ("--data", "scenes:8", "--weights", "a/affinitynet.pt", "--crf", "none")
    assert "walk affinitynet" in good("pseudo-labels", "seeds", *options).stdout


def test_the_default_folders_and_a_saved_classifier(place):
    torch.save(heads.tiny(seed=8, classes=2).state_dict(), "c.pt")
    options = ("--checkpoint", "c.pt", "--num-classes", "2", "--layers", "two, one", "--width", "0")
    good(*IRN, *options)
    found = load_heads("runs/irn/irn.pt")
    assert found.layers == ["one", "two"]
    at = {"at": {"checkpoint": str(place / "c.pt")}}
    assert found.made_with == {"model": MODEL, "checkpoint": "../../c.pt", "num_classes": 2} | at
    # which is all that the labels need
    good("pseudo-labels", "seeds", "--data", "scenes:8", "--weights", "runs/irn/irn.pt", "--crf", "none")


def test_heads_find_their_classifier_where_the_run_has_moved(place, monkeypatch):
    (place / "run").mkdir()
    torch.save(heads.tiny(seed=8, classes=2).state_dict(), "run/c.pt")
    good(*IRN, "--checkpoint", "run/c.pt", "--num-classes", "2", "--width", "0", "-o", "run/irn")
    labels = ("pseudo-labels", place / "seeds", "--data", "scenes:8", "--crf", "none", "--weights")
    good(*labels, "run/irn/irn.pt", "-o", "one")
    (place / "run").rename(place / "moved")
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / f"{MODULE}.py").write_text(Path(heads.__file__).read_text())
    monkeypatch.chdir(place / "elsewhere")
    good(*labels, "../moved/irn/irn.pt", "-o", place / "two")
    for name in SCENES.ids:
        assert (place / "one" / f"{name}.png").read_bytes() == (place / "two" / f"{name}.png").read_bytes()
    (place / "alone.pt").write_bytes((place / "moved" / "irn" / "irn.pt").read_bytes())
    said = refused(*labels, place / "alone.pt", "-o", place / "three")
    assert "alone.pt' was trained on the classifier of '../c.pt', and there is no such file" in said
    assert "give it with --checkpoint." in said


def test_ready_made_labels(place):
    (place / "masks").mkdir()
    for i, name in enumerate(SCENES.ids[:6]):
        Image.fromarray(SCENES.mask(i)).save(place / "masks" / f"{name}.png")
    options = ("train", "irn", "--labels", "masks", *DATA, *SHORT, "--width", "0", "-o", "a")
    result = run(*options)
    assert result.exit_code == 1
    assert [line.partition("/")[2] for line in result.stderr.splitlines()] == [
        f"{name}.png'." for name in SCENES.ids[6:]
    ]
    assert "training: 2 epochs of 6 images" in result.stdout
    assert not (place / "a" / "labels").exists()
    assert json.loads((place / "a" / "settings.json").read_text())["labels"] == {"classes": None}


# ---- stopped


@pytest.mark.parametrize("command,file", [(IRN, "irn.pt"), (PSA, "affinitynet.pt")])
def test_stopped_after_an_epoch_and_going_on(place, monkeypatch, command, file):
    good(*command, "-o", "whole")
    ask = LabelCrops.__getitem__

    def stopped(crops, which):
        if which[0] == 1:
            raise KeyboardInterrupt
        return ask(crops, which)

    monkeypatch.setattr(LabelCrops, "__getitem__", stopped)
    result = run(*command, "-o", "a")
    assert result.exit_code == 130
    assert result.stdout == "labels: 8 made, 0 were there\n"
    assert result.stderr == "stopped; run the same command again to continue.\n"
    assert not (place / "a" / file).exists()
    monkeypatch.undo()
    monkeypatch.chdir(place)
    again = good(*command, "-o", "a").stdout
    assert again.startswith("labels: 0 made, 8 were there\ntraining: 2 epochs")
    assert same(place / "a" / file, place / "whole" / file)


def test_stopped_between_training_and_the_file(place, monkeypatch):
    class Stopping(ProgressCallback):
        def done(self, text):
            if text.startswith("training"):
                raise KeyboardInterrupt

    told = []
    settings = IRNSettings(crf=None, network=IRNHeadSettings(3, 16), training=TrainSettings(1, 4, 32, (1, 1)))
    arguments = heads.tiny(), SCENES, SeedFolder("seeds"), place / "a", settings
    with pytest.raises(KeyboardInterrupt):
        train_irn(*arguments, watch=Stopping())
    watch = ProgressCallback()
    watch.done = told.append
    done = train_irn(*arguments, watch=watch)
    assert told[1] == "training: 1 epoch of 8 images in batches of 4, made before"
    assert done.losses == {}
    assert same(done.file, train_irn(*arguments[:3], place / "b", settings).file)


# ---- images that fail


def test_missing_seeds_and_broken_photographs_are_listed(place):
    data = photos(place / "mine", {f"{c}.png": ["cat"] for c in "abcdef"}, size=(40, 40))
    folder = random_seeds(place / "own", data)
    folder.get_path("b").unlink()
    (place / "mine" / "images" / "d.png").write_bytes(b"no")
    options = ("train", "irn", "own", "--data", "mine", "-m", MODEL, *SHORT, "--width", "0", "--crf", "none", "-o", "a")
    says = refused(*options)
    assert "1 of 6 images cannot be read, more than 5%: 'mine/images/d.png' is not an image" in says
    assert "train without them with --allow-missing" in says
    options += ("--allow-missing",)
    result = run(*options)
    assert result.exit_code == 1
    assert "labels: 4 made, 0 were there" in result.stdout
    assert "training: 2 epochs of 4 images" in result.stdout
    assert [("own/b.npz" in line, "d.png" in line) for line in result.stderr.splitlines()] == [
        (True, False),
        (False, True),
    ]
    for name in "acdef":
        folder.get_path(name).unlink()
    says = refused(*(v if v != "a" else "b" for v in options), "--json")
    assert "none of the 6 images has labels to train on; the first one: there is no seed 'own/a.npz'" in says


# ---- options from a file


def test_options_from_a_file(place):
    lines = ["seeds: seeds", "data: scenes:8", f"model: '{MODEL}'", "epochs: 1", "batch: 4", "crop: 32", "radius: 3"]
    lines += [
        "width: 0",
        "crf: none",
        "scales: [1, 1.25]",
        "lr: 1e0",
        "weight-decay: 0.0",
        "optimizer: adamw",
        "out: a",
    ]
    (place / "c.yaml").write_text("\n".join(lines))
    good("train", "irn", "--config", "c.yaml")
    told = json.loads((place / "a" / "settings.json").read_text())
    assert told["training"] == {
        "epochs": 1, "batch": 4, "crop": 32, "scales": [1, 1.25], "long_side": None, "seed": 0,
    }  # fmt: skip
    assert (told["network"]["schedule"]["optimizer"], told["network"]["schedule"]["lr"]) == ("adamw", 1)
    assert "training.seed differs" in refused("train", "irn", "--config", "c.yaml", "--seed", "3")
    (place / "c.yaml").write_text("\n".join([*lines, "low: 4"]))
    assert "unknown option 'low'; allowed are seeds, labels, data" in refused("train", "irn", "--config", "c.yaml")
    for line, says in (
        ("epochs: 1.5", "epochs = 1.5 cannot be read; give a whole number."),
        ("lr: fast", "lr = 'fast' cannot be read; give a number."),
        ("layers: ''", "layers = '' cannot be read; give names separated by commas."),
    ):
        others = [known for known in lines if known.partition(":")[0] != line.partition(":")[0]]
        (place / "c.yaml").write_text("\n".join([*others, line]))
        assert f"'c.yaml': {says}" in refused("train", "irn", "--config", "c.yaml")
    for value in ("[1]", "[1, two]", "[1, true]"):
        others = [known for known in lines if not known.startswith("scales")]
        (place / "c.yaml").write_text("\n".join([*others, f"scales: {value}"]))
        assert "cannot be read; give 2 numbers separated by commas." in refused("train", "irn", "--config", "c.yaml")
    (place / "c.yaml").write_text("\n".join([*lines, "epochs: 2"]))
    assert "this is not YAML ('epochs' stands twice" in refused("train", "irn", "--config", "c.yaml")
    (place / "c.yaml").write_text("\n".join([*lines, "weight_decay: 0.1"]))
    assert "gives 'weight-decay' twice, with '-' and with '_'" in refused("train", "irn", "--config", "c.yaml")


# ---- everything that goes wrong


def test_other_settings_and_other_classifiers_into_the_same_folder(place):
    good(*IRN, "--epochs", "1", "-o", "a")
    says = refused(*IRN, "--epochs", "1", "-o", "a", "--momentum", "0.5", "--long-side", "48")
    assert "'a' holds a training of other settings: network.schedule.momentum, training.long_side differ" in says
    torch.save(heads.tiny(seed=8).state_dict(), "c.pt")
    says = refused(*IRN, "--epochs", "1", "-o", "a", "--checkpoint", "c.pt")
    assert "the weights of --model differ" in says
    assert "--overwrite makes it anew, and another --out keeps it." in says
    says = refused(*IRN, "--epochs", "1", "-o", "a", "--data", "scenes:7")
    assert "1 image is gone" in says
    assert "heads, " in refused(*PSA, "-o", "a")


@pytest.mark.parametrize(
    "options,says",
    [
        (("--data", "scenes:none"), "'scenes:none' is not understood"),
        (("--labels", "masks"), "give either a folder of seeds or, with --labels, one of label pictures."),
        (("-m", "resnet50"), "'resnet50' names no model"),
        (("--layers", "four"), "this Tiny has no layer named 'four'"),
        (("--layers", "fc"), "feature maps [N,C,h,w] are needed, but 'fc' ([1, 6]) was found"),
        (("--checkpoint", "none.pt"), "there is no checkpoint 'none.pt'."),
        (("--crf", "dense"), "--crf 'dense'; allowed are irn, affinitynet, deeplab and none."),
        (("--foreground", "0.1", "--background", "0.2"), "thresholds 0.1 for objects and 0.2 for background"),
        (("--foreground", "otsu", "--background", "1"), "for background are not possible"),
        (("--foreground", "high"), "foreground = 'high' cannot be read; give a number or otsu."),
        (("--foreground", "0.001", "--background", "otsu"), "thresholds 0.001 for objects and 0."),
        (("--epochs", "0"), "epochs=0; give at least 1."),
        (("--batch", "0"), "batch=0; give at least 1."),
        (("--batch", "9"), "8 images do not fill a batch of 9; give a smaller batch."),
        (("--crop", "30"), "crop=30; give a multiple of 4, the network's stride."),
        (("--scales", "1.5,0.5"), "scales 1.5 and 0.5: give the smallest and the largest factor, above 0."),
        (("--long-side", "0"), "long_side=0; give at least 1."),
        (("--optimizer", "adam"), "optimizer='adam'; allowed are sgd, adamw."),
        (("--lr", "-1"), "lr=-1.0; give at least 0."),
        (("--momentum", "1"), "momentum=1.0; give at least 0 and less than 1."),
        (("--radius", "1"), "radius=1; give a whole number of positions, at least 2."),
        (("--width", "24"), "width=24; give a multiple of 16."),
        (("--seed", "-1"), "seed=-1; give 0 or more."),
        (("--workers", "-1"), "--workers -1; give 0 or more."),
        (("--device", "gpu"), "the device 'gpu' is not available here"),
        (("-o", "seeds/settings.json/x"), "cannot be made (Not a directory)"),
    ],
)
def test_bad_input(place, options, says):
    assert says in refused(*IRN, *options, "--json")
    assert not list(place.rglob("runs/irn/labels/*.png")) or options[0] == "--batch"


def test_thresholds_that_leave_no_label(place):
    said = refused_after(*IRN, "--foreground", "0.99999", "--background", "0", "-o", "a")
    assert "the loss of every step is exactly 0, so there is nothing to learn" in said
    assert not (place / "a" / "irn.pt").exists()


def refused_after(*words):
    """The sentence of a refusal that comes after lines on what was done."""
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


def test_a_batch_that_was_too_large_leaves_the_folder_open(place):
    refused(*IRN, "--batch", "9", "--epochs", "1", "-o", "again", "--json")
    good(*IRN, "--batch", "4", "--epochs", "1", "-o", "again")


def test_more_bad_input(place, monkeypatch):
    assert "low=9 and high=2 are not possible" in refused(*PSA, "--low", "9", "--high", "2")
    assert "width=57; give a multiple of 56." in refused(*PSA, "--width", "57")
    assert "crop=36; give a multiple of 8" in refused(*PSA, "--crop", "36")
    for name in ("irn", "affinitynet"):
        assert "give either a folder of seeds or, with --labels" in refused("train", name, *DATA)
        assert "--data is missing" in refused("train", name, "seeds")
    assert "there is no folder of labels 'masks'." in refused("train", "irn", "--labels", "masks", *DATA)
    assert "--crf has no effect on ready-made labels" in refused("train", "irn", "--labels", "m", *DATA, "--crf", "irn")
    assert "there is no folder 'none'" in refused("train", "irn", "none", *DATA)
    (place / "masks").mkdir()
    says = refused("train", "irn", "--labels", "masks", *DATA, "--json")
    assert "none of the 8 images has labels to train on; the first one: there are no labels 'masks/scene0" in says
    random_seeds(place / "own", photos(place / "mine", {"a.png": ["cat"]}))
    assert "has no class 'striped disc', which the data has" in refused("train", "irn", "own", *DATA)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "RANK=0 and WORLD_SIZE=2 are set, but not by torchrun" in refused(*IRN)
    monkeypatch.setitem(sys.modules, "lightning", None)
    assert 'install it with: pip install "camplug[train]".' in refused(*IRN)
