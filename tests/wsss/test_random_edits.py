"""After any edit of its sources an outcome is that of a fresh folder, and nothing else is made again."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import good, run
from contents import contents
from edited import CLASSES, MODEL, NET, relabel, write_data
from PIL import Image

COUNT = 4
NETWORK = ("-m", MODEL, "--num-classes", 3, "--checkpoint", "w.pt")
PLAIN = ("--crf", "none")
SPAN = ("--epochs", 1, "--batch", 2, "--crop", 32, "--preset", "modern", "--config", "sides.yaml")
SETTINGS = {"threshold": 0.4, "scale": 1.0}
RECIPE = """
title: edited
data:
  train: {{data: "folder:{data}"}}
classifier: {{given: {{model: "{model}", num_classes: 3, checkpoint: w.pt}}}}
seeds: {{explainer: "GradCAM", scale: {scale}, threshold: {threshold}}}
refine: {{kind: none}}
pseudo_labels: {{threshold: {threshold}, crf: none}}
evaluate: {{pictures: 0}}
"""
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder with data, weights and a module of a model."""
    (tmp_path / "stale_net.py").write_text(NET)
    (tmp_path / "sides.yaml").write_text("sides: [32, 32]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CAMPLUG_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    write_data(tmp_path / "own", count=COUNT)
    import stale_net

    torch.save(stale_net.Net().state_dict(), "w.pt")
    yield tmp_path
    sys.modules.pop("stale_net", None)


class Edited:
    """The data, the weights and the settings as they are after some edits, and how much each edit affects."""

    def __init__(self, rng):
        self.rng, self.data, self.settings = rng, "own", dict(SETTINGS)

    @property
    def root(self):
        return Path(self.data)

    def picture(self, most, *channels):
        return Image.fromarray(self.rng.integers(0, most, (24, 32, *channels), dtype=np.uint8))

    def some(self):
        return int(self.rng.integers(COUNT))

    def a_label(self):
        name = f"s{self.some()}.png"
        known = json.loads((self.root / "labels.json").read_text())[name]
        classes = [list(CLASSES[:k]) for k in (1, 2, 3)] + [[CLASSES[2]], [CLASSES[1]]]
        others = [one for one in classes if one != known]
        relabel(self.root, name, others[int(self.rng.integers(len(others)))])
        return {"seeds": 1, "labels": 1, "trains": True}

    def a_photograph(self):
        self.picture(256, 3).save(self.root / "images" / f"s{self.some()}.png")
        return {"seeds": 1, "labels": 1, "trains": True}

    def a_mask(self):
        self.picture(4).save(self.root / "masks" / f"s{self.some()}.png")
        return {"seeds": 0, "labels": 0, "trains": False}

    def the_weights(self):
        factor = 1 + float(self.rng.uniform(0.2, 0.8))
        torch.save({name: tensor * factor for name, tensor in torch.load("w.pt").items()}, "w.pt")
        return {"seeds": COUNT, "labels": COUNT, "trains": True}

    def a_setting_of_seeds(self):
        self.settings["scale"] = 1.5 - self.settings["scale"]
        return {"seeds": COUNT, "labels": COUNT, "trains": False}

    def a_setting_of_labels(self):
        self.settings["threshold"] = round(0.9 - self.settings["threshold"], 2)
        return {"seeds": 0, "labels": COUNT, "trains": False}

    def another_folder(self):
        target = f"copy{len(list(Path().glob('copy*')))}"
        shutil.copytree(self.data, target)
        self.data = target
        return {"seeds": 0, "labels": 0, "trains": False}

    def other_data_of_equal_names(self):
        target = f"other{len(list(Path().glob('other*')))}"
        write_data(Path(target), seed=int(self.rng.integers(1, 10**6)), count=COUNT)
        self.data = target
        return {"seeds": COUNT, "labels": COUNT, "trains": True}


EDITS = [name for name in vars(Edited) if name.startswith(("a_", "the_", "another_", "other_"))]


def seeds(now, out):
    given = ("--data", now.data, *NETWORK, "-o", out, "--explainer", "CAM('features.2')")
    return "seeds", *given, "--scale", now.settings["scale"]


def labels(now, source, out):
    return "pseudo-labels", source, "--data", now.data, "--threshold", now.settings["threshold"], *PLAIN, "-o", out


def classifier(now, out):
    return "train", "classifier", "--data", now.data, *NETWORK, "--out", out, *SPAN


def made(command):
    """Return the number of results that a command makes; with --overwrite where it refuses what is there."""
    result = run(*command)
    if result.exit_code == 2:
        assert "--overwrite makes it anew" in result.stderr, result.stderr
        result = good(*command, "--overwrite")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return int(result.stdout.split(" made, ")[0].split()[-2])


def trains(command):
    """Whether a training is run, and not found."""
    result = run(*command)
    if result.exit_code == 2:
        assert "--overwrite makes it anew" in result.stderr, result.stderr
        result = good(*command, "--overwrite")
    return "was there" not in result.output


def figures(results, now):
    return json.loads(good("evaluate", results, "--data", now.data, "--json").stdout)["per_class"]


def state(file):
    return {name: tensor.tolist() for name, tensor in torch.load(file, weights_only=True)["state"].items()}


def test_commands_after_random_edits():
    now = Edited(np.random.default_rng(7))
    assert (made(seeds(now, "seeds")), made(labels(now, "seeds", "labels"))) == (COUNT, COUNT)
    assert trains(classifier(now, "run"))
    for number, name in enumerate(now.rng.permutation(EDITS)):
        affected, fresh = getattr(now, name)(), Path(f"fresh{number}")
        found = made(seeds(now, "seeds")), made(labels(now, "seeds", "labels")), trains(classifier(now, "run"))
        assert found == (affected["seeds"], affected["labels"], affected["trains"]), (number, name)
        good(*seeds(now, fresh / "seeds"))
        good(*labels(now, fresh / "seeds", fresh / "labels"))
        good(*classifier(now, fresh / "run"))
        for kind, ending in (("seeds", "npz"), ("labels", "png")):
            assert contents(Path(kind), ending) == contents(fresh / kind, ending), (number, name)
            assert figures(kind, now) == figures(fresh / kind, now), (number, name)
        assert state("run/classifier.pt") == state(fresh / "run" / "classifier.pt"), (number, name)
        again = made(seeds(now, "seeds")), made(labels(now, "seeds", "labels")), trains(classifier(now, "run"))
        assert again == (0, 0, False), (number, name)


def test_another_order_of_the_classes_makes_nothing_again(monkeypatch):
    import stale_net

    monkeypatch.setattr(stale_net.Net, "classes", list(CLASSES), raising=False)  # matched by name
    now = Edited(np.random.default_rng(3))
    made(seeds(now, "seeds"))
    made(labels(now, "seeds", "labels"))
    trains(classifier(now, "run"))
    before = figures("seeds", now), figures("labels", now)
    order = [2, 0, 1]
    (now.root / "classes.txt").write_text("\n".join(CLASSES[k] for k in order))
    values = np.array([0, *(order.index(k) + 1 for k in range(3))], np.uint8)
    for file in (now.root / "masks").iterdir():
        Image.fromarray(values[np.asarray(Image.open(file))]).save(file)
    assert (made(seeds(now, "seeds")), made(labels(now, "seeds", "labels"))) == (0, 0)
    assert not trains(classifier(now, "run"))
    assert (figures("seeds", now), figures("labels", now)) == before


def run_recipe(now, out):
    Path("recipe.yaml").write_text(RECIPE.format(data=now.data, model=MODEL, **now.settings))
    return json.loads(good("wsss", "run", "recipe.yaml", "-o", out, "--json").stdout)


def products(report, out, stage, ending):
    (folder,) = [row["folder"] for row in report["stages"] if row["stage"] == stage]
    return sorted((Path(out) / folder).glob(f"*.{ending}"))


def test_recipes_after_random_edits():
    now, known = Edited(np.random.default_rng(5)), set()
    of = {"seeds": ("seeds train", "npz"), "labels": ("labels train", "png")}

    def new(report):
        """Return the number of files that each stage makes, without those taken over."""
        files = {kind: {p.stat().st_ino for p in products(report, "out", *stage)} for kind, stage in of.items()}
        counts = {kind: len(found - known) for kind, found in files.items()}
        known.update(*files.values())
        return counts

    assert new(run_recipe(now, "out")) == {"seeds": COUNT, "labels": COUNT}
    for number, name in enumerate(now.rng.permutation(EDITS)):
        affected, fresh = getattr(now, name)(), f"fresh{number}"
        report, wanted = run_recipe(now, "out"), run_recipe(now, fresh)
        told = new(report)
        assert all(told[kind] in (0, affected[kind]) for kind in told), (number, name, told)
        assert told == {kind: affected[kind] for kind in told} or "setting" in name, (number, name, told)
        for stage in of.values():
            two = [products(one, out, *stage) for one, out in ((report, "out"), (wanted, fresh))]
            assert [p.name for p in two[0]] == [p.name for p in two[1]]
            assert contents(two[0][0].parent, stage[1]) == contents(two[1][0].parent, stage[1]), (number, name)
        assert report["scores"] == wanted["scores"], (number, name)
