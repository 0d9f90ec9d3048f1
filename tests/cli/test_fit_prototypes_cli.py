"""`camplug fit-prototypes`, the seeds made with its file, and `--explainer best`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from commands import good, refused, run
from PIL import Image

import camplug
from camplug.wsss.data import Scenes
from camplug.wsss.seeds import SeedFolder

MODULE = "prototyped_models"
MODEL = f"import:{MODULE}:Tiny"
OWN = """
import torch
from torch import nn


class Tiny(nn.Module):
    pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3}

    def __init__(self, num_classes=6):
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 8, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, padding=1), nn.ReLU()
        )
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))
"""
LPCAM = "LPCAM(prototypes='p.npz')"


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / f"{MODULE}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_file_is_that_of_the_function_and_seeds_depend_on_it(place):
    fit = ("fit-prototypes", "--data", "scenes:8", "-m", MODEL, "-o", "p.npz")
    document = json.loads(good(*fit, "--json").stdout)
    assert (document["images"], document["broken"]) == (8, [])
    data, model = Scenes(8), camplug.load_model(MODEL)
    want = camplug.fit_prototypes(model, [(data.photo(i), data.labels(i)) for i in range(8)])
    got = camplug.LocalPrototypes.load("p.npz")
    for a, b in zip([*want.positive, *want.context], [*got.positive, *got.context], strict=True):
        torch.testing.assert_close(a, b)
    assert list(document["prototypes"].values()) == [len(p) for p in want.positive]
    assert "'p.npz' exists; replace it with --overwrite" in refused(*fit)

    seeds = ("seeds", "--data", "scenes:2", "-m", MODEL, "--explainer", LPCAM)
    good(*seeds)
    explainer = camplug.LPCAM(model, want)
    maps = explainer.explain(data.photo(0), list(data.labels(0))).maps
    np.testing.assert_allclose(SeedFolder("seeds").load(data.ids[0]).maps / 255, maps, atol=0.003)
    assert good(*seeds).stdout.startswith("seeds: 0 seeds made, 2 were there")
    good(*fit, "--overwrite", "--clusters", "1")
    assert "explainer_files" in refused(*seeds)


def test_broken_images_are_listed(place):
    folder = place / "data"
    for name in ("a", "b"):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (200, 40, 40)).save(folder / "images" / f"{name}.png")
    (folder / "images" / "c.png").write_bytes(b"no image")
    (folder / "labels.csv").write_text("image,labels\n" + "".join(f"{n},{Scenes(1).classes[0]}\n" for n in "abc"))
    (folder / "classes.txt").write_text("\n".join(Scenes(1).classes) + "\n")
    result = run("fit-prototypes", "--data", f"folder:{folder}", "-m", MODEL, "-o", "p.npz", "--json")
    assert result.exit_code == 1, result.output
    assert json.loads(result.stdout)["images"] == 2
    assert [b["image"] for b in json.loads(result.stdout)["broken"]] == ["c"]


def test_refusals(place):
    assert "--data is missing" in refused("fit-prototypes", "-m", MODEL)
    assert "prototypes are an .npz file" in refused("fit-prototypes", "--data", "scenes:1", "-m", MODEL, "-o", "p.pt")
    assert "clusters=0" in refused("fit-prototypes", "--data", "scenes:1", "-m", MODEL, "--clusters", "0")
    assert "LPCAM needs prototypes=" in refused("seeds", "--data", "scenes:1", "-m", MODEL, "--explainer", "LPCAM")


def test_best_is_stored_by_what_it_stands_for(place):
    good("seeds", "--data", "scenes:1", "-m", MODEL, "--explainer", "best")
    assert SeedFolder("seeds").read_settings()["explainer"] == camplug.explain.registry.BEST
