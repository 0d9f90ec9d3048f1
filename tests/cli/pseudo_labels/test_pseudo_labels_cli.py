"""`camplug pseudo-labels`: the library's labels, the same bytes after a kill and in shares, thresholds, options."""

from __future__ import annotations

import hashlib
import json
import time

import heads
import numpy as np
import pytest
from commands import good, refused, run
from contents import contents, marks
from forked import start
from heads import photos, random_seeds
from label_commands import MODULE, PLAIN, SCENES
from PIL import Image

from camplug.wsss.affinitynet.checkpoint import load_affinitynet
from camplug.wsss.data import Scenes
from camplug.wsss.data.masks import read_mask
from camplug.wsss.irn.checkpoint import load_irn
from camplug.wsss.pseudo import (
    AffinityNetWalk,
    ColourWalk,
    IRNWalk,
    LabelFolder,
    PseudoLabels,
    Threshold,
    make_labels,
    make_walked_seeds,
)
from camplug.wsss.seeds import SeedFolder, compute_otsu_thresholds, count_strongest_values


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
    assert "which do not exist yet; store them with --maps" in refused(*PLAIN, *walk, "--threshold", "otsu")
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
    process = start(*options, "-o", "killed").process
    try:
        while len(list((place / "killed").glob("*.png"))) < 2:
            assert process.is_alive(), "it ended by itself"
            time.sleep(0.005)
    finally:
        process.kill()
        process.join()
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


def test_colours_without_weights(place):
    """The walk over colours and pixel-adaptive refinement, and maps whose report chooses the threshold."""
    walk = ("--walk", "colour", "--beta", "5", "--steps", "20", "--power", "1.5")
    shown = good(*PLAIN, *walk, "--threshold", "0.35", "--crf", "par", "-o", "a").stdout
    assert "walk colour: 20 steps in 20 products, error at most 0.0e+00\nthreshold 0.35, given\na: 6 labels" in shown
    labels = PseudoLabels(ColourWalk(0.35, beta=5, steps=20, power=1.5), "par")
    assert contents(place / "a", "png") == by_library(place, labels)
    settings = LabelFolder("a").read_settings()
    assert settings["walk"] == {"kind": "colour", "beta": 5, "steps": 20, "power": 1.5}
    assert settings["crf"] == {"dilations": [1, 2, 4, 8, 12, 24], "iterations": 10, "w1": 0.3, "w2": 0.01, "scale": 0.5}
    good(*PLAIN, *walk, "--maps", "-o", "walked")
    good("evaluate", "walked", "--data", "scenes:6", "-o", "r.json")
    best = json.loads((place / "r.json").read_text())["best_threshold_here"]
    numbers = json.loads(good(*PLAIN, *walk, "--threshold-from", "r.json", "--crf", "none", "-o", "b", "--json").stdout)
    assert numbers["threshold"] == best
    assert "holds labels of other settings" in refused(*PLAIN, *walk, "--threshold", "0.35", "-o", "a")


WALK = """
from dataclasses import dataclass
from camplug.wsss.recipe import Walk

@dataclass(frozen=True)
class PowerSettings:
    power: float = 2.0

class Power:
    def __init__(self, network, power):
        self.power = power

    def maps(self, photo, maps):
        return maps**self.power

POWER = Walk(settings=PowerSettings, crf="none", threshold=0.25, make=Power)
"""


def test_a_walk_of_a_plug_in(place):
    (place / "camplug_test_power.py").write_text(WALK)
    walk = "import:camplug_test_power:POWER"
    result = good(*PLAIN, "--walk", f"{walk}?power=3", "--crf", "none", "-o", "a", "--json")
    numbers = json.loads(result.stdout)
    assert numbers["walk"] == {"kind": walk, "version": 1, "power": 3.0}
    assert (numbers["threshold"], numbers["threshold_chosen"]) == (0.25, "the walk's own")
    names = [name for name in SCENES.ids if len(SeedFolder("seeds").load(name).classes)]
    assert len(names) >= 3
    for name in names:
        seed = SeedFolder("seeds").load(name)
        maps = seed.to_full_size() ** 3
        wanted = np.where(maps.max(0) > 0.25, np.array([0, *(k + 1 for k in seed.classes)])[maps.argmax(0) + 1], 0)
        np.testing.assert_array_equal(np.asarray(Image.open(f"a/{name}.png")), wanted)
    good(*PLAIN, "--walk", walk, "--maps", "-o", "maps", "--dtype", "float16")
    one, other = SeedFolder("seeds").load(names[0]), SeedFolder("maps").load(names[0])
    assert np.abs(other.to_full_size() - one.to_full_size() ** 2).max() < 2e-3
    shown = good(*PLAIN, "--walk", walk, "--crf", "none", "-o", "b").stdout
    assert f"walk {walk}: version 1, power 2.0\nthreshold 0.25, the walk's own\n" in shown
    assert "--walk.powr: there is no such setting; did you mean 'power'?" in refused(*PLAIN, "--walk", f"{walk}?powr=3")
    says = refused(*PLAIN, "--walk", walk, "--power", "3")
    assert f"settings of a plug-in's walk follow its name: {walk}?power=...; leave it out." in says
