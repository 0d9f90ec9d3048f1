"""Training-time methods on drawn scenes that have each method's own problem: a table of docs/training.md.

    python benchmarks/training_scenes.py --json docs/figures/training_scenes.json
    python benchmarks/training_scenes.py --load docs/figures/training_scenes.json --markdown docs/training.md

A creature's head tells its class and a quarter of its area is a plain body (maps miss it: recall); class k stands
mostly on ground k (maps leak into it: false discovery rate). A classifier is trained in the ordinary way, then each
method goes on from there for the same number of epochs, with three random seeds of scenes and training.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markdown_tables import table
from measure import machine
from results import add_result_options, by_seed, command_line, tell
from torch import nn

import camplug
from camplug.metrics import false_discovery_rate, miou, recall
from camplug.wsss.atm import ATM
from camplug.wsss.classifier import Classifier, Learning, Method, Span, train_classifier
from camplug.wsss.data import Scenes
from camplug.wsss.fpr import FPR
from camplug.wsss.rpnet import RPNet
from camplug.wsss.seeds import SeedFolder, make_seeds, score_seeds
from camplug.wsss.train import Schedule

CLASSES, SIZE = 4, (64, 64)
FIRST, FURTHER = 30, 8
CENTRED = {"atrous": False, "channel_attention": False, "spatial_attention": False, "centred": True}
SMALL: dict[str, Any] = {"width": 64, "stages": "last,4", "scales": (1.0, 0.5)}
ROWS: dict[str, Method] = {
    "ordinary": Method(),
    "ATM": ATM(fum=False),
    "FUM": ATM(enhance=False, decrease=False),
    "ATM + FUM": ATM(),
    "context alone, centred": ATM(enhance=False, decrease=False, **CENTRED),
    "ATM + context alone, centred": ATM(**CENTRED),
    "RPNet's neck alone": RPNet(weight=0.0, **SMALL),
    "RPNet, 1 image": RPNet(images=1, **SMALL),
    "RPNet, 2 images": RPNet(images=2, **SMALL),
    "RPNet, 2 images, regions of classes": RPNet(images=2, regions="classes", **SMALL),
    "FPR, L_RC": FPR(pixel_rectification=0.0),
    "FPR, L_RC + L_PR": FPR(),
    "FPR, L_RC + L_PR at 0.05": FPR(pixel_rectification=0.05),
}


class Drawn(Scenes):
    """Keeps what it has drawn."""

    photo = lru_cache(maxsize=None)(Scenes.photo)
    labels = lru_cache(maxsize=None)(Scenes.labels)


def body() -> nn.Sequential:
    parts = zip(pairwise((3, 16, 32, 64, 64)), (2, 2, 2, 1), strict=True)
    return nn.Sequential(
        *(nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.BatchNorm2d(b), nn.ReLU()) for (a, b), s in parts)
    )


def scored(network: Classifier, splits: dict[str, Scenes]) -> dict[str, Any]:
    """CAM's seeds on val, at the threshold that is best on train; recall and FDR at every third threshold."""
    sweeps = {}
    with tempfile.TemporaryDirectory() as folder:
        for split, data in splits.items():
            seeds = SeedFolder(Path(folder) / split)
            seeds.prepare({})
            make_seeds(camplug.CAM(network), data, seeds)
            sweeps[split] = score_seeds(seeds, data)[0]
    matrix, matrices = sweeps["val"].at(sweeps["train"].best()[0]), sweeps["val"].matrices[::3]
    found, false = (100 * float(np.nanmean(of(matrix)[1:])) for of in (recall, false_discovery_rate))
    curve = [[100 * float(np.nanmean(of(m)[1:])) for of in (recall, false_discovery_rate)] for m in matrices]
    return {"miou": 100 * float(miou(matrix)), "recall": found, "fdr": false, "curve": curve}


def at_recall(wanted: float, curve: list[list[float]]) -> float:
    """The false discovery rate where the recall is the wanted one, between the thresholds measured."""
    points = sorted((r, f) for r, f in curve if np.isfinite(f))
    return float(np.interp(wanted, [r for r, _ in points], [f for _, f in points])) if points else float("nan")


def run(seed: int, rows: list[str], count: int) -> dict[str, dict[str, Any]]:
    """All rows of a seed."""
    splits = {
        name: Drawn(n, SIZE, 2 * seed + k, CLASSES, objects=(1, 2), plain=0.25, cooccurrence=0.9)
        for k, (name, n) in enumerate((("train", count), ("val", count // 2)))
    }
    reads = camplug.Preprocess(SIZE, (0.5,) * 3, (0.25,) * 3)
    found = {}
    with tempfile.TemporaryDirectory() as folder:

        def trained(model: nn.Module, name: str, method: Method, epochs: int, lr: float) -> Classifier:
            norm: Any = "trained" if name == "start" else "fixed"
            schedule = Schedule("adamw", lr, weight_decay=0.01)
            learning = Learning(schedule, head_lr=1.0, cut=None, batch_norm=norm)
            span = Span(epochs, 16, SIZE[0], (56, 84), seed)
            out = Path(folder) / name
            return train_classifier(
                model,
                splits["train"],
                out,
                method=method,
                learning=learning,
                span=span,
                preprocess=reads,
                keep_head=False if method.neck() else None,
            ).network

        torch.manual_seed(seed)
        start = trained(body(), "start", Method(), FIRST, 3e-3)
        for name in rows:
            began = time.perf_counter()
            network = trained(start, name, ROWS[name], FURTHER, 1e-3)
            found[name] = {"seconds": time.perf_counter() - began, **scored(network, splits)}
            print(
                seed,
                name,
                {k: round(v, 1) for k, v in found[name].items() if k != "curve"},
                file=sys.stderr,
                flush=True,
            )
    return found


def report(data: dict[str, Any]) -> list[str]:
    """The table in Markdown."""
    seeds = list(data["runs"].values())
    lines = [f"`{data['command']}`", ""]
    lines += [
        f"{data['count']} scenes, {FIRST} epochs of ordinary training, then {FURTHER} of each row's; CAM's seeds on "
        f"{data['count'] // 2} other scenes, mean ± standard deviation over {len(seeds)} seeds, and in brackets the "
        "mean difference from going on in the ordinary way, ± its standard deviation (same scenes, same start). "
        "Thresholds are the best on train; FDR at equal recall is where recall is that of the ordinary row. Rows "
        "with a neck (FUM, RPNet, context) begin with a new head.",
        "",
    ]
    body = []
    for name in seeds[0]:
        cells = []
        for run in seeds:
            run[name]["equal"] = at_recall(run["ordinary"]["recall"], run[name]["curve"])
        for key in ("miou", "recall", "fdr", "equal"):
            values = [run[name][key] for run in seeds]
            apart = [run[name][key] - run["ordinary"][key] for run in seeds]
            cell = f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
            if name != "ordinary":
                cell += f" ({statistics.mean(apart):+.1f} ± {statistics.stdev(apart):.1f})"
            cells.append(cell)
        body.append([name, *cells, f"{statistics.mean(run[name]['seconds'] for run in seeds):.0f}"])
    return [*lines, *table(["", "mIoU", "recall", "FDR", "FDR at equal recall", "s"], body)]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=300, help="scenes to train on")
    add_result_options(parser)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    facts: dict[str, Any] = {
        "command": command_line(),
        "machine": machine(torch.device("cpu"), ["camplug", "torch", "torchvision", "lightning", "numpy"]),
        "count": args.count,
    }
    tell(args, lambda: by_seed(args, facts, lambda seed: run(seed, args.rows, args.count)), report, "training_scenes")


if __name__ == "__main__":
    main(sys.argv[1:])
