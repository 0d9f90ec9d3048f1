"""Runs: killed and continued, changed, with masks closed, in two processes; and what the report says."""

from __future__ import annotations

import hashlib
import html
import io
import json
import re
import shutil
from pathlib import Path

import forked
import numpy as np
import pytest
from PIL import Image
from recipes import TINY, Heard, tiny

from camplug.errors import InputError
from camplug.metrics import ConfusionMatrix, Scores
from camplug.wsss.data import Scenes
from camplug.wsss.data.masks import read_mask
from camplug.wsss.pseudo import ColourWalk, PseudoLabels, Threshold, renumber_to_data
from camplug.wsss.recipe import make_recipe, run_recipe
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.report_pictures import draw_labels
from camplug.wsss.seeds import SeedFolder, compute_otsu_thresholds, count_strongest_values

IDS = Scenes(8).ids
TESTS = Path(__file__).parents[2] / "support"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:no image shows"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
]


SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {support!r})
from recipes import tiny
from camplug.wsss.recipe import run_recipe
run_recipe(tiny(), {out!r})
"""


def products(out):
    """The content of all final files of a run, by their names."""
    left_out = ("done.json", "settings.json", "spent.json")
    return {
        str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (out / "cache").rglob("*")
        if file.is_file() and file.name not in left_out and "checkpoints" not in file.parts
    }


def seeds_of_train(out):
    return SeedFolder(next((out / "cache").glob("seeds-train-*")))


def figures(report):
    return [{k: v for k, v in score.items() if k != "folder"} for score in report["scores"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    watch = Heard()
    return out, run_recipe(tiny(), out, watch=watch), watch


def test_every_stage_runs_once_and_then_none(whole):
    out, report, watch = whole
    assert report["finished"]
    assert report["network"] == "network.pt"
    (trained,) = (out / "cache").glob("deeplab-*/deeplab.pt")
    assert (out / "network.pt").read_bytes() == trained.read_bytes()
    assert len(watch.ran) == len(report["stages"]) == 23
    before = products(out)
    again = Heard()
    assert figures(run_recipe(tiny(), out, watch=again)) == figures(report)
    assert again.ran == []
    assert products(out) == before
    assert len([name for name in before if name.endswith(".npz")]) == 2 * (8 + 4 + 4)  # seeds and maps
    pictures = [name for name in before if name.endswith(".png") and "truth" not in name]
    assert len(pictures) == 8 + 8 + 4 + 4 + 4  # IRN's labels, pseudo-labels, two predictions


@pytest.mark.parametrize(
    ("stage", "step"),
    [("seeds train", 3), ("labels", 2), ("maps val", 1), ("evaluate maps train", 2), ("predictions val", 4)],
)
def test_killed_and_continued(whole, tmp_path, stage, step):
    out, report, _ = whole
    with pytest.raises(KeyboardInterrupt):
        run_recipe(tiny(), tmp_path, watch=Heard(stop=stage, step=step))
    partial = tmp_path / "report.json"
    if partial.exists():
        found = json.loads(partial.read_text())
        assert not found["finished"]
        assert "run the same command again" in (tmp_path / "report.md").read_text()
    assert figures(run_recipe(tiny(), tmp_path)) == figures(report)
    assert products(tmp_path) == products(out)


def test_killed_in_a_training(whole, tmp_path, monkeypatch):
    from camplug.wsss.deeplab.lightning_module import DeepLabTraining

    out, report, _ = whole
    step = DeepLabTraining.training_step

    def stopped(self, batch, number):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch, number)

    monkeypatch.setattr(DeepLabTraining, "training_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(tiny(), tmp_path)
    monkeypatch.undo()
    watch = Heard()
    assert figures(run_recipe(tiny(), tmp_path, watch=watch)) == figures(report)
    assert watch.ran[0] == "deeplab"
    assert products(tmp_path) == products(out)


def test_a_change_runs_what_depends_on_it(whole, tmp_path):
    moved = shutil.copytree(whole[0], tmp_path / "moved")
    watch = Heard()
    run_recipe(tiny(segment={"flip": True}), moved, watch=watch)
    assert watch.ran == [
        "predictions val",
        "evaluate predictions val",
        "predictions crf val",
        "evaluate predictions crf val",
    ]


def test_only_stages_that_score_open_masks(tmp_path, monkeypatch):
    now, opened = [None], []
    run, mask = StageContext.run, Scenes.mask

    def told(self, stage):
        now[0] = stage
        return run(self, stage)

    def recorded(self, i):
        opened.append(now[0])
        return mask(self, i)

    monkeypatch.setattr(StageContext, "run", told)
    monkeypatch.setattr(Scenes, "mask", recorded)
    run_recipe(tiny(), tmp_path)
    scored = [stage for stage in opened if stage is not None]
    assert {stage.kind for stage in scored} == {"evaluate"}
    assert len({stage.name for stage in scored}) == 9
    lists = {stage.part for stage in scored}
    assert opened.index(scored[0]) == len(opened) - len(scored) <= len(lists)  # one of each, before the first stage


def test_the_report_says_what_was_found(whole):
    out, report, _ = whole
    assert json.loads((out / "report.json").read_text()) == report
    scores = {score["stage"]: score for score in report["scores"]}
    val = Scenes(4, (48, 64), seed=1, classes=3, plain=0.25)
    folder = next((out / "cache").glob("predictions-val-*"))
    matrix = ConfusionMatrix(4)
    for i, name in enumerate(val.ids):
        matrix.add(read_mask(folder / f"{name}.png", 3), val.mask(i))
    wanted = Scores.of(matrix.matrix, ["background", *val.classes]).as_dict()
    found = scores["evaluate predictions val"]
    assert found["miou"] == wanted["miou"]
    assert found["per_class"] == wanted["per_class"]
    assert found["labels"] == "predicted by the network"
    assert found["list_sha256"] == hashlib.sha256("\n".join(val.ids).encode()).hexdigest()[:16]
    chosen = scores["choose maps threshold"]
    assert chosen["threshold_chosen"].endswith("optimistic")
    for name in ("evaluate maps train", "evaluate maps val", "evaluate labels val"):
        assert scores[name]["threshold"] == chosen["best_threshold_here"]
        assert scores[name]["threshold_chosen"].startswith("best on data.threshold (4 images, list ")
        assert scores[name]["labels"] == "image labels given"
    assert scores["evaluate labels train"]["crf"] == {"gaussian": [3, 3], "bilateral": [50, 5, 10], "iterations": 10}
    assert scores["evaluate predictions val"]["crf"] is None
    for name in ("evaluate seeds train", "evaluate seeds val"):
        assert scores[name]["threshold_chosen"] == "Otsu's method on data.train (8 images), no mask used"
        assert scores[name]["threshold"] == compute_otsu_thresholds(count_strongest_values(seeds_of_train(out), IDS))[0]
    assert {"camplug", "torch", "lightning", "python"} <= set(report["versions"])
    assert all(row["seconds"] > 0 and row["finished"] for row in report["stages"])
    assert report["data"]["val"]["images"] == 4


def test_the_report_says_what_the_walk_learned_from(whole):
    out, report, _ = whole
    row = {row["stage"]: row for row in report["stages"]}["affinities"]
    high = compute_otsu_thresholds(count_strongest_values(seeds_of_train(out), IDS), 3)[1]
    assert row["learned_from"] == {"method": "irn", "background": 0.05, "foreground": high}
    said = f"objects above {high:.3g}: Otsu's method on the seeds; background up to 0.05: fixed, given by the recipe"
    assert said in (out / "report.md").read_text()


def test_the_page_needs_nothing_else(whole):
    out, report, _ = whole
    page = (out / "report.html").read_text()
    assert not re.findall(r"src=[\"'](?!data:)", page)
    assert "http" not in page
    links = re.findall(r'href="([^"]*)"', page)
    assert links[0] == "network.pt"
    assert len(links) == 1 + 3 + 3 + 2 + 2 + 1  # network, seeds, maps, labels, predictions, figures
    assert all((out / link).exists() for link in links)
    rows = report["pictures"]
    assert [row["image"] for row in rows] == ["scene1_000001", "scene1_000003"]
    titles = ["photo", "seeds", "refined maps", "pseudo-labels", "prediction", "prediction with CRF", "truth"]
    assert [panel["title"] for panel in rows[0]["panels"]] == titles
    assert page.count("data:image/jpeg;base64,") == 2 * len(titles)
    val = Scenes(4, (48, 64), seed=1, classes=3, plain=0.25)
    truth = io.BytesIO()
    Image.fromarray(draw_labels(val.photo(1), val.mask(1), val.classes)).save(truth, "JPEG")
    assert (out / rows[0]["panels"][-1]["file"]).read_bytes() == truth.getvalue()
    assert rows[0]["labels"] == [val.classes[c] for c in val.labels(1)]
    text = (out / "report.md").read_text()
    miou = {score["stage"]: score["miou"] for score in report["scores"]}["evaluate labels val"]
    cells = " | ".join("-" if miou[c] is None else f"{100 * miou[c]:.1f}" for c in ("present", "all", "truth"))
    assert f"| labels val | val | 4 | {cells} |" in text


def test_the_report_checks_labels_and_the_classifier(whole):
    """The counts of empty and flooded labels and the average precision, again from the files of the run."""
    out, report, _ = whole
    val, folder = Scenes(4, (48, 64), seed=1, classes=3, plain=0.25), next((out / "cache").glob("labels-val-*"))
    shares = [np.mean(read_mask(folder / f"{name}.png", 3) != 0) for name in val.ids]
    found = {row["stage"]: row["labels"] for row in report["stages"]}
    assert found["labels val"]["objects"] == pytest.approx(np.mean(shares))
    assert found["labels val"]["empty_images"] == [n for n, s in zip(val.ids, shares, strict=True) if s == 0]
    assert found["labels val"]["flooded"] == sum(s > 0.98 for s in shares)
    assert found["seeds val"] is None
    seeds = SeedFolder(next((out / "cache").glob("seeds-val-*")))
    wanted = {}
    for c, name in enumerate(val.classes):
        ranked = sorted(range(4), key=lambda i: -seeds.load(val.ids[i]).logits[c])
        hits = [c in val.labels(i) for i in ranked]
        if 0 < sum(hits) < 4:  # the mean of the precisions at the hits
            wanted[name] = np.mean([sum(hits[: k + 1]) / (k + 1) for k in range(4) if hits[k]])
    assert report["classifier"]["val"]["average_precision"] == pytest.approx(wanted)
    page = (out / "report.html").read_text()
    for sentence in (*report["summary"]["made"], *report["summary"]["quality"], *report["next"]):
        assert html.escape(sentence, quote=False).replace('"', "&#34;").replace("'", "&#39;") in page


def test_a_broken_photograph_is_told_and_passed(tmp_path, monkeypatch):
    photo = Scenes.photo

    def broken(self, i):
        if self.ids[i] == "scene0_000002":
            raise InputError("the photograph is damaged.")
        return photo(self, i)

    monkeypatch.setattr(Scenes, "photo", broken)
    train = {**TINY["data"]["train"], "allow_missing": True}
    changes = {"refine": {"kind": "irn"}, "deeplab": None, "evaluate": {"products_on": ["train"]}}
    with (
        pytest.warns(UserWarning, match="scene0_000002"),
        pytest.raises(InputError, match="1 of 8 images cannot be re"),
    ):
        run_recipe(tiny(**changes), tmp_path)
    with pytest.warns(UserWarning, match="scene0_000002"):
        report = run_recipe(tiny(**changes, data={"train": train}), tmp_path)
    told = {row["stage"]: row["broken"] for row in report["stages"]}
    assert (
        told["classifier"] == told["seeds train"] == [{"image": "scene0_000002", "error": "the photograph is damaged."}]
    )
    assert [b["image"] for b in told["evaluate labels train"]] == ["scene0_000002"]


def test_refinements_by_colours_make_what_the_library_makes(tmp_path):
    """The walk over colours, and PAR at a fixed threshold, by hand from the run's own seeds."""
    sections = {name: part for name, part in tiny().text.items() if name != "deeplab"}
    sections |= {
        "refine": {"kind": "colour", "walk": {"steps": 8}},
        "pseudo_labels": {"threshold": 0.4, "crf": "par"},
        "evaluate": {"products_on": ["train"], "pictures": 0},
    }
    run_recipe(make_recipe(sections), tmp_path)
    maps, labels = (next((tmp_path / "cache").glob(f"{name}-train-*")) for name in ("maps", "labels"))
    scenes = make_recipe(sections).data["train"].open()
    for i, name in enumerate(scenes.ids):
        photo, seed = np.asarray(scenes.photo(i)), seeds_of_train(tmp_path).load(name)
        walked = ColourWalk(0, steps=8).maps(photo, seed.to_full_size())
        stored = SeedFolder(maps).load(name).to_full_size()
        np.testing.assert_allclose(stored, walked, atol=0.51 / 255)
        wanted = renumber_to_data(PseudoLabels(Threshold(0.4), "par")(photo, stored), seed.classes)
        assert np.array_equal(read_mask(labels / f"{name}.png", 3), wanted)


def test_two_processes_make_what_one_makes(whole, tmp_path):
    code = SCRIPT.format(support=str(TESTS), out=str(tmp_path))
    ended = forked.run(code=code, processes=2)
    assert [exit_code for exit_code, _, _ in ended] == [0, 0], ended
    one, two = (json.loads((out / "report.json").read_text()) for out in (whole[0], tmp_path))
    assert [row["images"] for row in one["stages"]] == [row["images"] for row in two["stages"]]
    assert {row["processes"] for row in two["stages"]} == {2}
    assert [s["images_scored"] for s in one["scores"]] == [s["images_scored"] for s in two["scores"]]
    for first, second in zip(one["scores"], two["scores"], strict=True):
        assert second["miou"]["all"] == pytest.approx(first["miou"]["all"], abs=0.02)
