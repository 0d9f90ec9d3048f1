"""Training-time methods on drawn scenes that have each method's own problem: a table of docs/training.md.

    python benchmarks/training_scenes.py --json docs/figures/training_scenes.json
    python benchmarks/training_scenes.py --load docs/figures/training_scenes.json --markdown docs/training.md

Three problems: plain bodies that maps miss, maps that are coarse, and grounds that stand for a class. For each, a
classifier is trained in the ordinary way, then every method goes on from there for the same number of epochs, with
several random seeds of scenes and training. What was chosen here (scenes, networks, weights) was chosen on other seeds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markdown_tables import table
from results import add_result_options, by_seed, describe_run, tell
from torch import nn

import camplug
from camplug.metrics import false_discovery_rate, miou, recall
from camplug.wsss.atm import ATM
from camplug.wsss.classifier import Classifier, LearningSettings, Method, SpanSettings, train_classifier
from camplug.wsss.data import Scenes
from camplug.wsss.fpr import FPR
from camplug.wsss.rpnet import RPNet
from camplug.wsss.seeds import SeedFolder, make_seeds, score_seeds
from camplug.wsss.train import ScheduleSettings

CLASSES, SIZE = 4, (64, 64)
FIRST, FURTHER = 30, 20
START, ON = 3e-3, 1e-3  # learning rates
ALONE = {"atrous": False, "channel_attention": False, "spatial_attention": False, "level": "last", "centred": True}
FIRST: dict[str, Any] = {"level": "last", "average": "present"}  # as module and losses were first
OFF = {"enhance": False, "decrease": False}
NECK: dict[str, Any] = {"width": 64, "stages": "last,2", "each_first": False}


@dataclass(frozen=True)
class Problem:
    """Scenes of one kind, the strides of the layers of the network that is trained on them, and the methods."""

    title: str
    scenes: dict[str, Any]
    strides: tuple[int, ...]
    rows: dict[str, Method]


BODIES = {"plain": 0.5, "cooccurrence": 0.0, "likeness": 0.5, "light": 1.4}
PROBLEMS = {
    "bodies": Problem(
        "Plain bodies. Half of every creature is a body that tells its class by a hint of colour alone; light is "
        "uneven, grounds tell nothing. Network of stride 4.",
        BODIES,
        (2, 2, 1),
        {
            "ordinary": Method(),
            "ATM": ATM(fum=False, average="present"),
            "FUM": ATM(**OFF, level="last"),
            "FUM, residual": ATM(**OFF, level="last", residual=True),
            "ATM + FUM, residual": ATM(**FIRST, residual=True),
            "FUM's context alone, centred": ATM(**OFF, **ALONE),
            "ATM + FUM's context alone, centred": ATM(**ALONE, average="present"),
        },
    ),
    "coarse": Problem(
        "Coarse maps. The same scenes, a network of stride 8.",
        BODIES,
        (2, 2, 2, 1),
        {
            "ordinary": Method(),
            "RPNet's neck alone": RPNet(weight=0.0, **NECK),
            "RPNet, 2 images, scale 1 alone": RPNet(images=2, scales=(1.0,), **NECK),
            "RPNet, 1 image": RPNet(images=1, **NECK),
            "RPNet, 2 images": RPNet(images=2, **NECK),
            "RPNet, 1 image, weight 30": RPNet(images=1, weight=30.0, **NECK),
            "RPNet, 2 images, weight 30": RPNet(images=2, weight=30.0, **NECK),
        },
    ),
    "grounds": Problem(
        "Grounds that co-occur. No bodies; in 95 of 100 scenes class k stands on ground k. Network of stride 4.",
        {"plain": 0.0, "cooccurrence": 0.95},
        (2, 2, 1),
        {
            "ordinary": Method(),
            "FPR, L_RC": FPR(pixel_rectification=0.0),
            "FPR, L_RC + L_PR": FPR(),
            "FPR, L_PR at 0.01": FPR(region_contrast=0.0, pixel_rectification=0.01),
            "FPR, L_RC + L_PR at 0.01": FPR(pixel_rectification=0.01),
        },
    ),
}


class Bodies(Scenes):
    """Counts no pixel of a head."""

    def mask(self, i: int) -> np.ndarray:
        return np.where(self.part(i) == 1, self.ignore, super().mask(i)).astype(np.uint8)


def body(strides: tuple[int, ...]) -> nn.Sequential:
    widths = (3, 16, 32, 64, 64)
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.BatchNorm2d(b), nn.ReLU())
            for (a, b), s in zip(pairwise(widths), strides, strict=False)
        )
    )


def scored(network: Classifier, splits: dict[str, Scenes], bodies: Scenes | None) -> dict[str, Any]:
    """CAM's seeds on val, at the threshold that is best on train; recall and FDR at every third threshold."""
    sweeps = {}
    with tempfile.TemporaryDirectory() as folder:
        for split, data in splits.items():
            seeds = SeedFolder(Path(folder) / split)
            seeds.prepare({})
            make_seeds(camplug.CAM(network), data, seeds)
            sweeps[split] = score_seeds(seeds, data)[0]
        threshold = sweeps["train"].best()[0]
        part = None if bodies is None else score_seeds(SeedFolder(Path(folder) / "val"), bodies)[0].at(threshold)
    matrix, matrices = sweeps["val"].at(threshold), sweeps["val"].matrices[::3]
    found, false = (100 * float(np.nanmean(of(matrix)[1:])) for of in (recall, false_discovery_rate))
    curve = [[100 * float(np.nanmean(of(m)[1:])) for of in (recall, false_discovery_rate)] for m in matrices]
    of_bodies = None if part is None else 100 * float(np.nanmean(recall(part)[1:]))
    return {"miou": 100 * float(miou(matrix)), "recall": found, "bodies": of_bodies, "fdr": false, "curve": curve}


def between(wanted: float, pairs: list[tuple[float, float]]) -> float:
    """The second number of the pairs where the first is the wanted one."""
    points = sorted((x, y) for x, y in pairs if np.isfinite(x) and np.isfinite(y))
    return float(np.interp(wanted, *zip(*points, strict=True))) if points else float("nan")


def run(seed: int, problems: list[str], count: int) -> dict[str, dict[str, Any]]:
    """All rows of a seed, by problem."""
    return {name: run_problem(seed, PROBLEMS[name], count) for name in problems}


def run_problem(seed: int, problem: Problem, count: int) -> dict[str, Any]:
    def drawn(kind: type[Scenes], n: int, k: int) -> Scenes:
        return kind(n, SIZE, 2 * seed + k, CLASSES, objects=(1, 2), **problem.scenes)

    splits = {"train": drawn(Scenes, count, 0), "val": drawn(Scenes, count // 2, 1)}
    bodies = drawn(Bodies, count // 2, 1) if problem.scenes["plain"] else None
    reads = camplug.Preprocess(SIZE, (0.5,) * 3, (0.25,) * 3)
    found = {}
    with tempfile.TemporaryDirectory() as folder:

        def trained(model: nn.Module, name: str, method: Method, epochs: int, lr: float) -> Classifier:
            schedule = ScheduleSettings("adamw", lr, weight_decay=0.01)
            fresh = name == "start"
            learning = LearningSettings(
                schedule, head_lr=1.0 if fresh else 4.0, cut=None, batch_norm="train" if fresh else "fixed"
            )
            return train_classifier(
                model,
                splits["train"],
                Path(folder) / name,
                method=method,
                learning=learning,
                span=SpanSettings(epochs, 16, SIZE[0], (56, 84), seed),
                preprocess=reads,
                keep_head=False if method.get_neck_settings() else None,
            ).network

        torch.manual_seed(seed)
        start = trained(body(problem.strides), "start", Method(), FIRST, START)
        for name, method in problem.rows.items():
            began = time.perf_counter()
            network = trained(start, name, method, FURTHER, ON)
            found[name] = {"seconds": time.perf_counter() - began, **scored(network, splits, bodies)}
            told = {k: round(v, 1) for k, v in found[name].items() if k != "curve" and v is not None}
            print(seed, name, told, file=sys.stderr, flush=True)
    return found


COLUMNS = {
    "miou": "mIoU",
    "recall": "recall",
    "bodies": "recall of bodies",
    "fdr": "FDR",
    "same_fdr": "recall at equal FDR",
    "same_recall": "FDR at equal recall",
}


def report(data: dict[str, Any]) -> list[str]:
    """The tables in Markdown."""
    seeds = list(data["runs"].values())
    lines = [f"`{data['command']}`", ""]
    lines += [
        f"{data['count']} scenes, {FIRST} epochs of ordinary training, then {FURTHER} of each row's; CAM's seeds on "
        f"{data['count'] // 2} other scenes, mean ± standard deviation over {len(seeds)} seeds, and in brackets the "
        "mean difference from going on in the ordinary way, ± its standard deviation (same scenes, same start). "
        "Thresholds are the best on train; at equal FDR (recall) is where it is that of the ordinary row. Rows "
        "with a neck (FUM, RPNet, context) begin with a new head.",
        "",
    ]
    for problem in seeds[0]:
        runs = [run[problem] for run in seeds]
        lines += [PROBLEMS[problem].title, "", *table_of(runs)]
    return lines


def table_of(runs: list[dict[str, Any]]) -> list[str]:
    for rows in runs:
        usual = rows["ordinary"]
        for row in rows.values():
            row["same_fdr"] = between(usual["fdr"], [(fdr, found) for found, fdr in row["curve"]])
            row["same_recall"] = between(usual["recall"], row["curve"])
    columns = {key: title for key, title in COLUMNS.items() if runs[0]["ordinary"][key] is not None}
    lines = []
    for name in runs[0]:
        cells = []
        for key in columns:
            values = [rows[name][key] for rows in runs]
            apart = [rows[name][key] - rows["ordinary"][key] for rows in runs]
            usual = name == "ordinary"
            spread = float(np.std(values if usual else apart, ddof=1))
            more = f" ± {spread:.1f}" if usual else f" ({np.mean(apart):+.1f} ± {spread:.1f})"
            cell = f"{np.mean(values):.1f}{more}"
            cells.append(cell)
        lines.append([name, *cells, f"{np.mean([rows[name]['seconds'] for rows in runs]):.0f}"])
    return table(["", *columns.values(), "s"], lines)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--count", type=int, default=300, help="scenes to train on")
    add_result_options(parser)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    facts: dict[str, Any] = {
        **describe_run("torchvision", "lightning", "numpy"),
        "count": args.count,
    }
    tell(
        args, lambda: by_seed(args, facts, lambda seed: run(seed, args.problems, args.count)), report, "training_scenes"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
