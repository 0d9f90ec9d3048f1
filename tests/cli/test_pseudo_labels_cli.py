"""`camplug pseudo-labels`: the library's labels, the same bytes after a kill and in shares, thresholds, bad input."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import heads
import numpy as np
import pytest
import torch
from commands import good, refused, run
from contents import contents
from heads import photos, random_seeds
from PIL import Image

from camplug.wsss.affinitynet import AffinityNet, AffinityNetHeadSettings
from camplug.wsss.affinitynet.checkpoint import load_affinitynet, save_affinitynet
from camplug.wsss.data import Scenes
from camplug.wsss.data.masks import read_mask
from camplug.wsss.irn import IRN, IRNHeadSettings
from camplug.wsss.irn.checkpoint import load_irn, save_irn
from camplug.wsss.pseudo import (
    AffinityNetWalk,
    IRNWalk,
    LabelFolder,
    PseudoLabels,
    Threshold,
    make_labels,
    make_walked_seeds,
)
from camplug.wsss.seeds import SeedFolder, compute_otsu_thresholds, count_strongest_values
from camplug.wsss.train import Backbone

MODULE = "camplug_test_label_models"
MODEL = f"import:{MODULE}:Tiny"
HOLDING = '''

class Holding(Tiny):
    """Waits after four images as long as there is a file "hold"."""

    def forward(self, x):
        import glob, os, time

        while os.path.exists("hold") and len(glob.glob("killed/*.png")) >= 4:
            time.sleep(0.02)
        return super().forward(x)


def other():
    return nn.Sequential(nn.Conv2d(3, 4, 3))
'''
PLAIN = ("pseudo-labels", "seeds", "--data", "scenes:6")
SCENES = Scenes(6)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Seeds and heads, made once."""
    place = tmp_path_factory.mktemp("kept")
    random_seeds(place / "seeds", SCENES)
    backbone = Backbone(heads.tiny())
    torch.manual_seed(1)
    made_with = {"model": MODEL, "checkpoint": None, "num_classes": None}
    save_irn(place / "irn.pt", IRN(backbone, IRNHeadSettings(width=0)), made_with)
    save_affinitynet(place / "affinitynet.pt", AffinityNet(backbone, AffinityNetHeadSettings(width=56)), made_with)
    return place


@pytest.fixture(autouse=True)
def place(kept, tmp_path, monkeypatch):
    """A working folder with seeds, heads and a module of models, and no torchrun around."""
    (tmp_path / f"{MODULE}.py").write_text(Path(heads.__file__).read_text() + HOLDING)
    for name in ("seeds", "irn.pt", "affinitynet.pt"):
        (tmp_path / name).symlink_to(kept / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CAMPLUG_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    sys.modules.pop(MODULE, None)


def marks(folder):
    """What changes when a file is written again."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*.png")}


def by_library(place, labels, name="library"):
    folder = LabelFolder(place / name)
    folder.prepare({})
    make_labels(labels, SCENES, SeedFolder("seeds"), folder)
    return contents(folder.path, "png")


# ---- what is made


def test_thresholds_alone(place):
    result = good(*PLAIN, "--threshold", "0.6", "--crf", "none", "-o", "a", "--json")
    numbers = json.loads(result.stdout)
    assert (numbers["folder"], numbers["made"], numbers["found"], numbers["broken"]) == ("a", 6, 0, [])
    assert (numbers["threshold"], numbers["threshold_chosen"]) == (0.6, "given")
    assert "walk" not in numbers
    assert contents(place / "a", "png") == by_library(place, PseudoLabels(Threshold(0.6)))
    settings = LabelFolder("a").read_settings()
    assert settings == {
        "holds": "labels",
        "classes": list(SCENES.classes),
        "seeds": {"explainer": "by hand", "classes": list(SCENES.classes)},
        "walk": None,
        "threshold": 0.6,
        "crf": None,
        "certainty": 0.7,
    }


def test_with_a_crf(place):
    good(*PLAIN, "--threshold", "0.6", "--crf", "deeplab", "--certainty", "0.8", "-o", "a")
    assert contents(place / "a", "png") == by_library(place, PseudoLabels(Threshold(0.6), "deeplab", 0.8))
    settings = LabelFolder("a").read_settings()
    assert settings["crf"] == {"gaussian": [1, 3], "bilateral": [67, 3, 4], "iterations": 10}


def test_irn(place):
    options = ("--beta", "5", "--steps", "20", "--power", "1.5", "--clear", "0.5")
    shown = good(*PLAIN, "--weights", "irn.pt", *options, "--threshold", "0.35", "-o", "a").stdout
    assert "walk irn: 20 steps in 20 products, error at most 0.0e+00\nthreshold 0.35, given\na: 6 labels made" in shown
    irn = load_irn("irn.pt", heads.tiny())
    walk = IRNWalk(irn, 0.35, beta=5, steps=20, power=1.5, clear=0.5)
    assert contents(place / "a", "png") == by_library(place, PseudoLabels(walk, "irn"))
    walked = LabelFolder("a").read_settings()["walk"]
    weights = hashlib.sha256((place / "irn.pt").read_bytes()).hexdigest()[:16]
    assert walked == {"kind": "irn", "weights": weights, "beta": 5, "steps": 20, "power": 1.5, "clear": 0.5}


def test_the_papers_threshold_is_told(place):
    shown = good(*PLAIN, "--weights", "irn.pt", "--crf", "none", "-o", "a").stdout
    assert "walk irn: 256 steps in 78 products, error at most 6.5e-07" in shown
    assert "threshold 0.25, IRN's own, chosen for other seeds: choose yours with --maps and `camplug evaluate`" in shown
    assert contents(place / "a", "png") == by_library(place, PseudoLabels(IRNWalk(load_irn("irn.pt", heads.tiny()))))


def test_affinitynet(place):
    good(
        *PLAIN, "--weights", "affinitynet.pt", "--walk", "affinitynet", "--alpha", "6", "--steps", "64", "--crf", "none"
    )
    walk = AffinityNetWalk(load_affinitynet("affinitynet.pt", heads.tiny()), 6, steps=64)
    assert contents(place / "labels", "png") == by_library(place, PseudoLabels(walk))
    numbers = json.loads(good(*PLAIN, "--weights", "affinitynet.pt", "-o", "b", "--crf", "none", "--json").stdout)
    assert "threshold" not in numbers
    assert {k: numbers["walk"][k] for k in ("kind", "alpha", "beta", "steps", "products")} == {
        "kind": "affinitynet", "alpha": 16, "beta": 8, "steps": 256, "products": 78,
    }  # fmt: skip


def test_labels_can_be_evaluated(place):
    good(*PLAIN, "--threshold", "0.6", "--crf", "none")
    report = json.loads(good("evaluate", "labels", "--data", "scenes:6", "--json").stdout)
    assert (report["images_scored"], report["labels"]["threshold"]) == (6, 0.6)
    assert "seeds" not in report
    (place / "mine").mkdir()
    photos(place / "mine" / "x", {"a.png": ["cat"]})
    assert "no masks" in refused("evaluate", "labels", "--data", "mine/x")


# ---- thresholds of another split


def test_maps_a_report_and_its_threshold(place):
    random_seeds(place / "other", Scenes(4, seed=9), seed=1)
    walk = ("--weights", "irn.pt", "--steps", "30")
    shown = good("pseudo-labels", "other", "--data", "scenes:4:9", *walk, "--maps", "-o", "walked").stdout
    assert "walked: 4 seeds made" in shown
    folder = SeedFolder(place / "library")
    folder.prepare({})
    irn = IRNWalk(load_irn("irn.pt", heads.tiny()), steps=30)
    make_walked_seeds(irn, Scenes(4, seed=9), SeedFolder("other"), folder)
    assert contents(place / "walked", "npz") == contents(place / "library", "npz")
    settings = SeedFolder("walked").read_settings()
    assert (settings["dtype"], settings["walk"]["steps"]) == ("uint8", 30)
    assert settings["seeds"] == SeedFolder("other").read_settings()
    chosen = json.loads(good("evaluate", "walked", "--data", "scenes:4:9", "-o", "r.json", "--json").stdout)
    options = (*walk, "--crf", "none", "--threshold-from", "r.json")
    numbers = json.loads(good(*PLAIN, *options, "-o", "a", "--json").stdout)
    assert numbers["threshold"] == chosen["best_threshold_here"]
    assert numbers["threshold_chosen"] == "best on scenes:4:9 (r.json)"
    good(*PLAIN, *walk, "--crf", "none", "--threshold", chosen["best_threshold_here"], "-o", "b")
    assert contents(place / "a", "png") == contents(place / "b", "png")
    says = refused(*PLAIN, "--threshold-from", "r.json")
    assert "'r.json' chose its threshold on walked maps, and here it would cut maps before any walk" in says
    says = refused(*PLAIN, "--weights", "irn.pt", "--threshold-from", "r.json")
    assert "chose its threshold on walked maps, and here it would cut maps of another walk; make those of that" in says
    good("evaluate", "other", "--data", "scenes:4:9", "-o", "plain.json")
    says = refused(*PLAIN, *walk, "--threshold-from", "plain.json")
    assert "'plain.json' chose its threshold on maps before any walk, and here it would cut walked maps" in says
    good(*PLAIN, "--crf", "none", "--threshold-from", "plain.json", "-o", "c")
    # the walked maps are seeds like any others
    again = ("pseudo-labels", "walked", "--data", "scenes:4:9", "--crf", "none")
    numbers = json.loads(good(*again, "--threshold", "otsu", "-o", "o", "--json").stdout)
    assert numbers["threshold"] == compute_otsu_thresholds(count_strongest_values(folder, Scenes(4, seed=9).ids))[0]
    assert numbers["threshold_chosen"] == "by Otsu's method on the values of 4 images' maps"
    good(*again, "--threshold", numbers["threshold"], "-o", "p")
    assert contents(place / "o", "png") == contents(place / "p", "png")
    assert "these have yet to walk; store them with --maps" in refused(*PLAIN, *walk, "--threshold", "otsu")
    assert "threshold = 'high' cannot be read; give a number, otsu or none." in refused(*PLAIN, "--threshold", "high")
    numbers = json.loads(good(*again, "--threshold-from", "r.json", "-o", "d", "--json").stdout)
    assert numbers["threshold_chosen"].endswith("optimistic")


def test_psa_maps_at_one_half_are_psa_labels(place):
    good(*PLAIN, "--weights", "affinitynet.pt", "--maps", "--dtype", "float16", "-o", "walked")
    good("pseudo-labels", "walked", "--data", "scenes:6", "--threshold", "0.5", "--crf", "none", "-o", "a")
    good(*PLAIN, "--weights", "affinitynet.pt", "--crf", "none", "-o", "b")
    pairs = [[read_mask(place / name / f"{image}.png", 6) for name in "ab"] for image in SCENES.ids]
    assert np.mean([a != b for a, b in pairs]) < 2e-3  # half precision


# ---- killed, and in shares


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again(place):
    options = (*PLAIN, "--weights", "irn.pt", "-m", f"import:{MODULE}:Holding")
    good(*options, "-o", "whole")
    (place / "hold").touch()
    process = subprocess.Popen([sys.executable, "-m", "camplug", *options, "-o", "killed"], cwd=place, env=os.environ)
    try:
        while len(list((place / "killed").glob("*.png"))) < 2:
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (place / "hold").unlink()
    before, whole = marks(place / "killed"), contents(place / "whole", "png")
    assert 2 <= len(before) <= 4
    assert contents(place / "killed", "png").items() <= whole.items()  # whatever has a picture's name is whole
    (place / "killed" / "scene0_000005.png.4711.part").write_bytes(b"PNG")  # had it been killed while writing
    numbers = json.loads(good(*options, "-o", "killed", "--json").stdout)
    assert (numbers["made"], numbers["found"]) == (6 - len(before), len(before))
    assert contents(place / "killed", "png") == whole
    assert len(whole) == 6
    assert marks(place / "killed").items() >= before.items()
    assert list((place / "killed").glob("*.part")) == []


def test_two_shares_give_the_same_bytes(place, monkeypatch):
    options = (*PLAIN, "--weights", "irn.pt", "--crf", "none")
    good(*options, "-o", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        shown = good(*options, "-o", "two").stdout
        assert f"two (share {int(rank) + 1} of 2): 3 labels made" in shown
        assert ("walk irn" in shown) == (rank == "0")
    assert contents(place / "one", "png") == contents(place / "two", "png")


# ---- images that fail


def test_what_fails_is_listed_and_repaired(place):
    names = {"a.png": ["dog"], "b.png": ["cat", "yak"], "c.png": [], "d.png": ["cat"]}
    data = photos(place / "mine", names)
    random_seeds(place / "own", data)
    photo, seed = place / "mine" / "images" / "d.png", place / "own" / "b.npz"
    contents = {p: p.read_bytes() for p in (photo, seed)}
    photo.write_bytes(contents[photo][:200])
    seed.unlink()
    options = ("pseudo-labels", "own", "--data", "mine", "--threshold", "0.4")
    result = run(*options)
    assert result.exit_code == 1
    assert "2 labels made" in result.stdout
    lines = result.stderr.splitlines()
    assert lines[0].startswith("skipped: there is no seed 'own/b.npz'")
    assert "d.png" in lines[1]
    assert len(lines) == 2
    assert "Traceback" not in result.output
    before = marks(place / "labels")
    for file, content in contents.items():
        file.write_bytes(content)
    numbers = json.loads(good(*options, "--json").stdout)
    assert (numbers["made"], numbers["found"], numbers["broken"]) == (2, 2, [])
    assert marks(place / "labels").items() >= before.items()


# ---- options from a file


@pytest.mark.parametrize("ending", ["toml", "yaml"])
def test_options_from_a_file(place, ending):
    given = {"seeds": "seeds", "data": "scenes:6", "weights": "irn.pt", "crf": "none", "out": "a", "steps": 30}
    given |= {"threshold": 0.5}
    lines = [f"{k} = {json.dumps(v)}" if ending == "toml" else f"{k}: {json.dumps(v)}" for k, v in given.items()]
    (place / f"c.{ending}").write_text("\n".join(lines))
    good("pseudo-labels", "--config", f"c.{ending}")
    good(*PLAIN, "--weights", "irn.pt", "--crf", "none", "--steps", "30", "--threshold", "0.5", "-o", "b")
    assert contents(place / "a", "png") == contents(place / "b", "png")
    assert LabelFolder("a").read_settings() == LabelFolder("b").read_settings()
    good("pseudo-labels", "--config", f"c.{ending}", "--steps", "3", "--out", "c")  # the command line comes first
    assert LabelFolder("c").read_settings()["walk"]["steps"] == 3
    (place / f"c.{ending}").write_text(lines[0].replace("seeds", "sets"))
    assert "has an unknown option 'sets'; allowed are seeds, data," in refused(
        "pseudo-labels", "--config", f"c.{ending}"
    )


# ---- everything that goes wrong


def test_other_settings_into_the_same_folder(place):
    options = (*PLAIN, "--threshold", "0.6", "--crf", "none")
    good(*options)
    before = marks(place / "labels")
    says = refused(*PLAIN, "--threshold", "0.5", "--crf", "none", "--certainty", "0.8")
    assert (
        "'labels' holds labels of other settings: certainty, threshold differ (certainty: 0.7 there, 0.8 now)" in says
    )
    says = refused(*PLAIN, "--weights", "irn.pt", "--threshold", "0.6", "--crf", "none")
    assert "walk.beta, walk.clear, walk.kind, walk.power, walk.steps, the weights of --weights differ" in says
    assert marks(place / "labels") == before


@pytest.mark.parametrize(
    "options,says",
    [
        ((), "--threshold is missing: up to which value a map is background; choose it with `camplug evaluate`"),
        (("--threshold", "1"), "a threshold of 1 is not possible"),
        (("--threshold", "-0.1"), "a threshold of -0.1 is not possible"),
        (("--threshold", "0.3", "--threshold-from", "r.json"), "exclude each other"),
        (("--threshold-from", "r.json"), "'r.json' is no report of `camplug evaluate`"),
        (("--threshold", "0.3", "--crf", "dense"), "--crf 'dense'; allowed are irn, affinitynet, deeplab and none."),
        (("--threshold", "0.3", "--certainty", "1"), "certainty=1; give a probability between 0 and 1"),
        (("--threshold", "0.3", "--data", "scenes:none"), "'scenes:none' is not understood"),
        (("--threshold", "0.3", "--data", "nowhere"), "'nowhere' is missing; give the data set's folder."),
        (("--walk", "crf"), "walk='crf'; allowed are none, irn, affinitynet"),
        (("--walk", "irn"), "--walk irn needs --weights; `camplug train irn` makes them."),
        (("--walk", "affinitynet"), "--walk affinitynet needs --weights; `camplug train affinitynet` makes them."),
        (("--walk", "none", "--weights", "irn.pt"), "--walk none uses no --weights"),
        (("--walk", "affinitynet", "--weights", "irn.pt"), "'irn.pt' holds an IRNet; an AffinityNet is needed."),
        (
            ("--walk", "irn", "--weights", "affinitynet.pt"),
            "'affinitynet.pt' holds an AffinityNet; an IRNet is needed.",
        ),
        (("--weights", "none.pt"), "there is no file 'none.pt'; `camplug train` makes it."),
        (("--weights", "seeds/settings.json"), "is no file of trained heads, or damaged"),
        (
            ("--weights", "irn.pt", "-m", f"import:{MODULE}:tiny", "--checkpoint", "c.pt"),
            "there is no checkpoint 'c.pt'",
        ),
        (
            ("--weights", "irn.pt", "--num-classes", "7"),
            "on another classifier (" + MODEL + "), of other weights; give",
        ),
        (("--weights", "irn.pt", "-m", f"import:{MODULE}:other"), "this Sequential has no layer named 'one.0'"),
        (("--weights", "irn.pt", "-m", "resnet50"), "'resnet50' names no model"),
        (("--weights", "irn.pt", "--device", "gpu"), "the device 'gpu' is not available here"),
        (("--weights", "irn.pt", "--beta", "0"), "beta=0; give a number above 0"),
        (("--weights", "irn.pt", "--steps", "-1"), "steps=-1; give 0 to"),
        (("--weights", "irn.pt", "--alpha", "4"), "--alpha has no effect with --walk irn; leave it out."),
        (
            ("--weights", "affinitynet.pt", "--power", "2"),
            "--power has no effect with --walk affinitynet; leave it out.",
        ),
        (
            ("--weights", "affinitynet.pt", "--threshold", ".3"),
            "has no effect with --walk affinitynet; it has a background of its",
        ),
        (("--beta", "4", "--threshold", "0.3"), "--beta has no effect with --walk none; leave it out."),
        (("-m", "demo", "--threshold", "0.3"), "--model has no effect with --walk none; leave it out."),
        (("--maps",), "--maps stores the maps after a walk; give --weights of one."),
        (("--maps", "--weights", "irn.pt", "--crf", "irn"), "--crf has no effect with --maps; leave it out."),
        (("--maps", "--weights", "irn.pt", "--dtype", "int8"), "dtype='int8'; allowed are 'uint8', 'float16'."),
        (("--dtype", "uint8", "--threshold", "0.3"), "--dtype has no effect without --maps; leave it out."),
    ],
)
def test_bad_input(place, options, says):
    assert says in refused(*PLAIN, *options)
    assert not contents(place)


def test_seeds_that_cannot_be_used(place):
    assert "there is no folder 'none'" in refused("pseudo-labels", "none", "--data", "scenes:6", "--threshold", "0.3")
    (place / "empty").mkdir()
    says = refused("pseudo-labels", "empty", "--data", "scenes:6", "--threshold", "0.3")
    assert "'empty' holds neither seeds" in says
    good(*PLAIN, "--threshold", "0.6", "--crf", "none")
    says = refused("pseudo-labels", "labels", "--data", "scenes:6", "--threshold", "0.3", "-o", "b")
    assert "'labels' holds label pictures; give a folder of seeds, made by `camplug seeds`." in says
    random_seeds(place / "own", photos(place / "mine", {"a.png": ["cat"]}))
    says = refused("pseudo-labels", "own", "--data", "scenes:6", "--threshold", "0.3", "-o", "b")
    assert "has no class 'striped disc', which the data has" in says
    assert "--data is missing" in refused("pseudo-labels", "seeds")
    assert "the folder of seeds is missing" in refused("pseudo-labels", "--data", "scenes:6")


def test_heads_that_do_not_name_their_classifier(place):
    save_irn(place / "mine.pt", IRN(Backbone(heads.tiny()), IRNHeadSettings(width=0)))
    says = refused(*PLAIN, "--weights", "mine.pt")
    assert "'mine.pt' does not name its classifier; give it with --model." in says
    good(*PLAIN, "--weights", "mine.pt", "-m", MODEL, "--crf", "none")


def test_without_lightning(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    says = refused(*PLAIN, "--weights", "irn.pt")
    assert says.endswith('this needs the package lightning; install it with: pip install "camplug[train]".')
    good(*PLAIN, "--threshold", "0.6", "--crf", "none")


def test_the_numbers_of_the_crf(place):
    good(*PLAIN, "--threshold", "0.5", "--crf", "affinitynet", "-o", "affinitynet")
    numbers = ("--crf-gaussian", "3,3", "--crf-bilateral", "80,13,10")
    good(*PLAIN, "--threshold", "0.5", "--crf", "irn", *numbers, "-o", "numbers")
    for name in SCENES.ids:
        assert (place / "affinitynet" / f"{name}.png").read_bytes() == (place / "numbers" / f"{name}.png").read_bytes()
    kept = json.loads((place / "numbers" / "settings.json").read_text())["crf"]
    assert kept == {"gaussian": [3, 3], "bilateral": [80, 13, 10], "iterations": 10}
    assert "--crf-iterations has no effect with --crf none" in refused(
        *PLAIN, "--threshold", "0.5", "--crf", "none", "--crf-iterations", "3", "-o", "none"
    )
    assert "--crf-gaussian has no effect with --maps" in refused(
        *PLAIN, "--weights", "irn.pt", "--maps", "--crf-gaussian", "3,3", "-o", "maps"
    )


def test_a_long_side(place):
    good(*PLAIN, "--threshold", "0.6", "--crf", "none", "--long-side", "20", "-o", "a")
    folder = LabelFolder(place / "library")
    folder.prepare({})
    make_labels(PseudoLabels(Threshold(0.6)), SCENES, SeedFolder("seeds"), folder, long_side=20)
    assert contents(place / "a", "png") == contents(folder.path, "png")
    assert LabelFolder("a").read_settings()["long_side"] == 20
    assert Image.open("a/scene0_000000.png").size == SCENES.photo(0).size
    assert "long_side differs" in refused(*PLAIN, "--threshold", "0.6", "--crf", "none", "-o", "a")
