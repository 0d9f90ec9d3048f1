"""Results of something else are never taken for what was asked: they are made again one by one, or refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import good, refused, run
from contents import contents, marks
from edited import CLASSES, MODEL, NET, relabel, write_data, write_labels
from PIL import Image

from camplug.wsss.deeplab import DeepLabNetworkSettings, build_deeplab, save_deeplab

SEEDS = ("seeds", "--data", "own", "-m", MODEL, "--explainer", "CAM('features.2')")
LABELS = ("pseudo-labels", "seeds", "--data", "own", "--threshold", "0.4", "--crf", "none")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder with data and a module of a model."""
    (tmp_path / "stale_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CAMPLUG_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    write_data(tmp_path / "own")
    (tmp_path / "sides.yaml").write_text("sides: [32, 32]")
    yield tmp_path
    sys.modules.pop("stale_net", None)


def said(*arguments):
    """Return the numbers of results made and found."""
    told = json.loads(good(*arguments, "--json").stdout)
    return told["made"], told["found"]


def changed(folder, before):
    return sorted(name for name, mark in marks(folder).items() if before.get(name) != mark)


def test_a_label_that_is_corrected(place):
    assert (said(*SEEDS), said(*LABELS)) == ((4, 0), (4, 0))
    seeds, labels = marks(place / "seeds"), marks(place / "labels")
    relabel(place / "own", "s0.png", ["yak", "dog"])
    result = run(*LABELS)  # the seeds come first
    assert result.exit_code == 1
    assert "s0.npz' was made of other labels; run the command that made it again" in result.stderr
    assert (said(*SEEDS), said(*LABELS)) == ((1, 3), (1, 3))
    assert changed(place / "seeds", seeds) == ["s0.npz"]
    assert changed(place / "labels", labels) == ["s0.png"]
    assert (said(*SEEDS, "-o", "new"), said(*SEEDS)) == ((4, 0), (0, 4))
    assert contents(place / "new") == contents(place / "seeds")


def test_a_photograph_that_is_replaced(place):
    assert (said(*SEEDS), said(*LABELS)) == ((4, 0), (4, 0))
    shutil.copy(place / "own" / "images" / "s1.png", place / "own" / "images" / "s2.png")
    result = run("evaluate", "seeds", "--data", "own")
    assert result.exit_code == 1
    assert "s2.npz' was made of another photograph" in result.stderr
    assert (said(*SEEDS), said(*LABELS)) == ((1, 3), (1, 3))
    good("evaluate", "labels", "--data", "own")


def test_other_data_of_the_same_names(place):
    good(*SEEDS)
    write_data(place / "own2", seed=1)
    other = [a if a != "own" else "own2" for a in SEEDS]
    assert said(*other) == (4, 0)
    assert (said(*other, "-o", "new"), contents(place / "new")) == ((4, 0), contents(place / "seeds"))
    shutil.copytree(place / "own2", place / "moved")
    assert said(*[a if a != "own" else "moved" for a in SEEDS]) == (0, 4)


def test_other_weights_at_the_same_place(place):
    import stale_net

    weights = stale_net.Net().state_dict()
    torch.save(weights, "w.pt")
    given = (*SEEDS, "--checkpoint", "w.pt")
    assert said(*given) == (4, 0)
    shutil.copy("w.pt", "other_name.pt")
    assert said(*SEEDS, "--checkpoint", place / "other_name.pt") == (0, 4)  # the same file
    before = marks(place / "seeds")
    torch.save({k: v * 1.5 for k, v in weights.items()}, "w.pt")
    says = refused(*given)
    assert "'seeds' holds seeds of other settings: the weights of --model differ; --overwrite makes it anew" in says
    assert marks(place / "seeds") == before
    good(*LABELS)
    assert said(*given, "--overwrite") == (4, 0)
    assert said(*given, "--overwrite") == (0, 4)
    assert said(*given, "-o", "new") == (4, 0)
    assert contents(place / "new") == contents(place / "seeds")
    says = refused(*LABELS)
    assert "'labels' holds labels of other settings: the weights of the seeds' model differ" in says
    assert said(*LABELS, "--overwrite") == (4, 0)


def test_overwriting_leaves_nothing_of_other_settings(place):
    write_data(place / "more", count=6)
    more = [a if a != "own" else "more" for a in SEEDS]
    assert said(*more) == (6, 0)
    assert "scale differs" in refused(*SEEDS, "--scale", "0.5")
    assert said(*SEEDS, "--scale", "0.5", "--overwrite") == (4, 0)
    assert sorted(p.name for p in (place / "seeds").iterdir()) == [*(f"s{i}.npz" for i in range(4)), "settings.json"]


@pytest.mark.parametrize("command", [SEEDS, LABELS])
def test_overwriting_by_a_file_of_options(place, command):
    good(*SEEDS)
    good(*command)
    change = ("--long-side", "20")
    assert "long_side differs" in refused(*command, *change)
    (place / "c.toml").write_text("overwrite = false")
    assert "long_side differs" in refused(*command, *change, "--config", "c.toml")
    (place / "c.toml").write_text("overwrite = true")
    assert said(*command, *change, "--config", "c.toml") == (4, 0)


def test_a_refused_command_overwrites_nothing(place):
    good(*SEEDS)
    before = marks(place / "seeds")
    assert "the model has 7 classes" in refused(*SEEDS, "--num-classes", "7", "--overwrite")
    assert marks(place / "seeds") == before
    assert said(*SEEDS) == (0, 4)


def test_another_order_of_the_classes_is_the_same(place):
    names = f"\n\nNet.classes = {list(CLASSES)}\n"
    (place / "stale_net.py").write_text(NET + names)
    good(*SEEDS)
    good(*LABELS)
    before = marks(place / "seeds")
    (place / "own" / "classes.txt").write_text("yak\ncat\ndog")
    assert (said(*SEEDS), said(*LABELS)) == ((0, 4), (0, 4))
    assert marks(place / "seeds") == before


def test_the_order_of_the_classes_is_that_of_a_model_without_names(place):
    good(*SEEDS)
    (place / "own" / "classes.txt").write_text("yak\ncat\ndog")
    assert "classes differs" in refused(*SEEDS)
    assert said(*SEEDS, "--overwrite") == (4, 0)
    assert said(*SEEDS, "-o", "fresh") == (4, 0)
    assert contents(place / "seeds") == contents(place / "fresh")


def test_predictions_of_another_network(place):
    import stale_net

    def save(name, seed):
        body = stale_net.Net()
        torch.manual_seed(seed)
        network = build_deeplab(body, list(CLASSES), DeepLabNetworkSettings(head="aspp", width=8, output_stride=None))
        save_deeplab(name, network, {"model": MODEL, "num_classes": 3})

    save("a.pt", 0)
    given = ("segment", "-w", "a.pt", "--data", "own")
    assert said(*given) == (4, 0)
    shutil.copy("a.pt", "b.pt")
    assert said("segment", "-w", place / "b.pt", "--data", "own") == (0, 4)
    relabel(place / "own", "s0.png", ["dog"])
    assert said(*given) == (0, 4)  # no label is read
    shutil.copy(place / "own" / "images" / "s1.png", place / "own" / "images" / "s2.png")
    assert said(*given) == (1, 3)
    save("a.pt", 1)
    says = refused(*given)
    assert "'predictions' holds labels of other settings: the weights of --weights differ" in says
    assert said(*given, "--overwrite") == (4, 0)


def test_a_missing_photograph_is_told(place):
    good(*SEEDS)
    (place / "own" / "images" / "s3.png").unlink()
    result = run(*SEEDS)
    assert result.exit_code == 1
    assert "3 were there" in result.stdout
    assert "skipped: " in result.stderr
    assert "s3.png" in result.stderr


# ---- trainings

CLASSIFIER = (
    "train",
    "classifier",
    "--data",
    "own",
    "-m",
    MODEL,
    "--num-classes",
    "3",
    "--out",
    "run",
    "--epochs",
    "1",
)
CLASSIFIER += ("--batch", "2", "--crop", "32", "--preset", "modern", "--config", "sides.yaml")


def weights_of(file):
    return torch.load(file, weights_only=True)["state"]


def same_weights(one, other):
    return all(torch.equal(tensor, weights_of(other)[name]) for name, tensor in weights_of(one).items())


@pytest.mark.filterwarnings("ignore")
def test_a_training_of_other_images(place):
    good(*CLASSIFIER)
    shutil.copytree(place / "own", place / "moved")
    moved = [a if a != "own" else "moved" for a in CLASSIFIER]
    assert "run/classifier.pt was there" in good(*moved).output
    before = (place / "run" / "classifier.pt").read_bytes()
    relabel(place / "own", "s1.png", ["cat", "dog"])
    says = refused(*CLASSIFIER)
    assert "'run' holds a training of other settings: 1 of 4 images has other labels; --overwrite makes it anew" in says
    shutil.copy(place / "own" / "images" / "s1.png", place / "own" / "images" / "s2.png")
    says = refused(*CLASSIFIER, "--seed", "3")
    assert "span.seed differs (span.seed: 0 there, 3 now); 1 of 4 images has another photograph; 1 of 4" in says
    assert "0 of" not in says
    assert (place / "run" / "classifier.pt").read_bytes() == before
    write_data(place / "own2", seed=1)
    assert "4 of 4 images have other photographs; 4 of 4 images have other labels" in refused(
        *[a if a != "own" else "own2" for a in CLASSIFIER]
    )
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(place / "moved" / "masks" / "s0.png")
    assert "was there" in good(*moved).output  # no mask is read
    sides = (place / "sides.yaml").read_text()
    (place / "sides.yaml").write_text(f"{sides}\noverwrite: true")
    good(*CLASSIFIER)
    (place / "sides.yaml").write_text(sides)
    good(*[a if a != "run" else "fresh" for a in CLASSIFIER])
    assert same_weights(place / "run" / "classifier.pt", place / "fresh" / "classifier.pt")
    assert "was there" in good(*CLASSIFIER, "--overwrite").output


@pytest.mark.filterwarnings("ignore")
def test_a_training_from_other_weights(place):
    import stale_net

    weights = stale_net.Net().state_dict()
    torch.save(weights, "w.pt")
    given = (*CLASSIFIER, "--checkpoint", "w.pt")
    good(*given)
    shutil.copy("w.pt", "copy.pt")
    assert "was there" in good(*CLASSIFIER, "--checkpoint", place / "copy.pt").output
    torch.save({k: v * 1.5 for k, v in weights.items()}, "w.pt")
    assert "of other settings: the weights of --model differ" in refused(*given)
    further = ("train", "classifier", "--data", "own", "-m", "run/classifier.pt", "--out", "second", *CLASSIFIER[10:])
    good(*further)
    good(*given, "--overwrite")
    assert "the weights of --model differ" in refused(*further)


@pytest.mark.filterwarnings("ignore")
def test_heads_and_networks_of_other_seeds_and_labels(place):
    good(*SEEDS)
    good(*LABELS)
    small = ("-m", MODEL, "--epochs", "1", "--batch", "2", "--crop", "32", "--data", "own")
    irn = ("train", "irn", "seeds", *small, "--layers", "features.0", "--out", "irn", "--width", "0", "--crf", "none")
    deeplab = ("train", "deeplab", "labels", *small, "--out", "net", "--head", "aspp", "--width", "8")
    (place / "stride.yaml").write_text("output_stride: none")
    deeplab += ("--config", "stride.yaml")
    good(*irn)
    good(*deeplab)
    relabel(place / "own", "s0.png", ["yak", "dog"])
    assert "was there" in good(*irn).output  # the seeds are still the same
    good(*SEEDS)
    assert "'irn' holds a training of other settings: 1 of 4 images has another seed" in refused(*irn)
    assert "labels: 1 made, 3 were there" in good(*irn, "--overwrite").output
    assert "was there" in good(*deeplab).output
    good(*LABELS)
    shutil.copytree(place / "labels", place / "other")
    moved = [a if a != "labels" else place / "other" for a in deeplab]
    assert "1 of 4 images has another label picture" in refused(*moved)
    good(*deeplab, "--overwrite")
    assert "was there" in good(*moved).output  # the same pictures in another folder


@pytest.mark.filterwarnings("ignore")
def test_nothing_is_learned_from_labels_of_another_photograph(place):
    good(*SEEDS)
    good(*LABELS)
    small = ("-m", MODEL, "--epochs", "1", "--batch", "2", "--crop", "32", "--data", "own")
    (place / "stride.yaml").write_text("output_stride: none")
    deeplab = ("train", "deeplab", "labels", *small, "--head", "aspp", "--width", "8", "--config", "stride.yaml")
    irn = ("train", "irn", "seeds", *small, "--layers", "features.0", "--out", "irn", "--width", "0", "--crf", "none")
    good(*irn)
    shutil.copy(place / "own" / "images" / "s1.png", place / "own" / "images" / "s2.png")
    result = run(*deeplab, "--out", "net", "--json")
    assert (result.exit_code, json.loads(result.stdout)["images"]) == (1, 3)
    assert "labels/s2.png' was made of another photograph; run the command that made it again" in result.stderr
    result = run(*irn, "--overwrite", "--json")  # its label picture of s2 is there, from the first run
    assert (result.exit_code, json.loads(result.stdout)["images"]) == (1, 3)
    assert "seeds/s2.npz' was made of another photograph" in result.stderr


# ---- reports


def report_of(name, *arguments):
    good("evaluate", *arguments, "-o", name)
    return json.loads((Path(name)).read_text())


def test_thresholds_of_the_same_images_under_other_names(place):
    write_data(place / "own2", seed=1)
    other = [a if a != "own" else "own2" for a in SEEDS]
    good(*SEEDS)
    good(*other, "-o", "seeds2")
    report_of("own.json", "seeds", "--data", "own")
    chosen = ("seeds2", "--data", "own2", "--threshold-from", "own.json")
    assert report_of("two.json", *chosen)["threshold_chosen"] == "best on own (own.json)"
    shutil.copytree(place / "own", place / "renamed")
    for i in range(4):
        for part in ("images", "masks"):
            (place / "renamed" / part / f"s{i}.png").rename(place / "renamed" / part / f"t{i}.png")
    labels = json.loads((place / "renamed" / "labels.json").read_text())
    write_labels(place / "renamed", {name.replace("s", "t"): names for name, names in labels.items()})
    good(*[a if a != "own" else "renamed" for a in SEEDS], "-o", "seeds3")
    chosen = ("seeds3", "--data", "renamed", "--threshold-from", "own.json")
    assert report_of("three.json", *chosen)["threshold_chosen"].endswith("optimistic")
