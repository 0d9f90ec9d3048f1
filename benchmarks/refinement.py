"""The activation-aware loss beside plain cross-entropy, with good and bad saliency: a table of docs/deeplab.md.

    python benchmarks/refinement.py --json docs/figures/refinement.json
    python benchmarks/refinement.py --load docs/figures/refinement.json --markdown docs/deeplab.md

Labels are wrong as those of weak maps are: they spill over outlines as a coarse map does, and in every third image they
miss the creatures' bodies. On the same labels a small DeepLab is trained in each row's way, with three random seeds of
scenes and training; the masks of the scenes serve to make labels and saliency, and to tell the figures.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from markdown_tables import table
from numpy.typing import NDArray
from PIL import Image
from results import add_result_options, by_seed, describe_run, tell
from scipy import ndimage
from torch import Tensor, nn

import camplug
from camplug.metrics import ConfusionMatrix, miou, recall
from camplug.wsss.data import Scenes
from camplug.wsss.deeplab import (
    DeepLab,
    DeepLabNetworkSettings,
    DeepLabSettings,
    Segmenter,
    refinement,
    train_deeplab,
)
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.saliency import compute_colour_contrast, read_saliency
from camplug.wsss.train import ScheduleSettings, TrainingResult, TrainSettings

CLASSES, SIDE = 4, 64
FIRST = 25
KINDS = {
    "perfect": "perfect: the creatures' outlines",
    "noisy": "noisy: blurred, with blobs",
    "contrast": "colour contrast, which needs no model",
    "centre": "centre-biased: a blob in the middle",
}
Floats = NDArray[np.float64]


def body() -> nn.Sequential:
    parts = zip(pairwise((3, 16, 32, 48, 48)), (2, 2, 1, 1), strict=True)
    return nn.Sequential(
        *(nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.BatchNorm2d(b), nn.ReLU()) for (a, b), s in parts)
    )


def weak_labels(mask: NDArray[np.uint8], part: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A mask as a coarse map would tell it: on a grid of stride 8, cut low, so that it spills; some without bodies."""
    if rng.random() < 1 / 3:
        mask = np.where(part == 2, 0, mask)
    shares = []
    for c in range(1, CLASSES + 1):
        coarse = Image.fromarray((mask == c).astype(np.float32)).resize((SIDE // 8,) * 2, Image.Resampling.BOX)
        shares.append(np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
    best = np.stack(shares)
    return np.where(best.max(0) > rng.uniform(0.15, 0.4), best.argmax(0) + 1, 0).astype(np.uint8)


def saliency(kind: str, photo: Any, mask: NDArray[np.uint8], rng: np.random.Generator) -> Floats:
    """A saliency map of a kind, in [0, 1]."""
    y, x = (np.mgrid[0:SIDE, 0:SIDE] + 0.5) / SIDE - 0.5
    if kind == "perfect":
        return (mask > 0).astype(np.float64)
    if kind == "contrast":
        return compute_colour_contrast(photo).astype(np.float64)
    if kind == "centre":
        return np.exp(-(x * x + y * y) / 2 / 0.25**2)
    blobs = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 4)
    speckle = rng.normal(0, 0.1, (SIDE, SIDE))
    return (ndimage.gaussian_filter((mask > 0).astype(float), 2.5) + 0.3 * blobs / blobs.std() + speckle).clip(0, 1)


def written(data: Scenes, folder: Path, seed: int) -> dict[str, float]:
    """Labels and saliency of all kinds, in folders; how far they agree with the masks (mIoU in %)."""
    labels = LabelFolder(folder / "labels")
    labels.prepare({})
    matrices = {name: ConfusionMatrix(2) for name in KINDS} | {"labels": ConfusionMatrix(CLASSES + 1)}
    for i, name in enumerate(data.ids):
        rng = np.random.default_rng((seed, i))
        mask = data.mask(i)
        labels.save(name, weak_labels(mask, data.part(i), rng))
        matrices["labels"].add(np.asarray(Image.open(labels.get_path(name))), mask)
        for kind in KINDS:
            values = (255 * saliency(kind, data.photo(i), mask, rng)).round().astype(np.uint8)
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(values).save(folder / kind / f"{name}.png")
            salient = read_saliency(folder / kind, name, (SIDE, SIDE)) >= 0.5
            matrices[kind].add(salient.astype(np.uint8), (mask > 0).astype(np.uint8))
    return {name: 100 * float(miou(matrix.matrix)) for name, matrix in matrices.items()}


def always_one(one: Tensor, other: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """In place of `refinement.compute_agreement`: tau is 1 whatever the maps say."""
    tau, conflicts = AGREEMENT(one, other, counted)
    return torch.ones_like(tau), conflicts


AGREEMENT = refinement.compute_agreement


def trained(  # noqa: PLR0917
    model: nn.Module, data: Scenes, folder: Path, kind: str | None, alpha: float, fixed: bool, epochs: int, seed: int
) -> TrainingResult[DeepLab]:
    """A network trained on the labels, by cross-entropy alone (no kind) or with a kind of saliency."""
    settings = DeepLabSettings(
        DeepLabNetworkSettings(
            head="aspp",
            output_stride=None,
            dilations=(1, 2, 4),
            batch_norm="train",
            head_lr=1.0,
            schedule=ScheduleSettings("adamw", 3e-3, weight_decay=0.01),
            refinement=alpha if kind else 0.0,
        ),
        TrainSettings(epochs, 16, SIDE, (1.0, 1.0), seed=seed),
    )
    with mock.patch.object(refinement, "compute_agreement", always_one) if fixed else nullcontext():
        return train_deeplab(
            model,
            data,
            folder / "labels",
            folder / f"run_{kind}_{alpha}_{fixed}_{epochs}",
            settings,
            saliency=None if kind is None else folder / kind,
            preprocess=camplug.Preprocess((SIDE, SIDE), (0.5,) * 3, (0.25,) * 3),
        )


def scored(network: DeepLab, data: Scenes) -> dict[str, float]:
    """In %: mIoU, and how much of the creatures is called by their class."""
    segment, matrix = Segmenter(network), ConfusionMatrix(CLASSES + 1)
    for i in range(len(data)):
        matrix.add(segment(np.asarray(data.photo(i))), data.mask(i))
    return {"miou": 100 * float(miou(matrix.matrix)), "recall": 100 * float(np.nanmean(recall(matrix.matrix)[1:]))}


def run(seed: int, alphas: list[float], count: int, epochs: int) -> dict[str, Any]:
    """All rows of a seed."""
    data, val = (
        Scenes(n, (SIDE, SIDE), 2 * seed + k, CLASSES, objects=(1, 2)) for k, n in enumerate((count, count // 2))
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found: dict[str, Any] = {"inputs": written(data, folder, seed)}
        torch.manual_seed(seed)
        start = trained(body(), data, folder, None, 0.0, False, FIRST, seed).network
        rows: list[tuple[str | None, float, bool]] = [(None, 0.0, False)]
        rows += [(kind, alpha, fixed) for alpha in alphas for kind in KINDS for fixed in (False, True)]
        for kind, alpha, fixed in rows:
            name = "plain" if kind is None else f"{kind} {alpha:g} {'fixed' if fixed else 'tau'}"
            began = time.perf_counter()
            done = trained(start, data, folder, kind, alpha, fixed, epochs, seed)
            found[name] = {"seconds": time.perf_counter() - began, **scored(done.network, val)}
            found[name] |= {k: done.losses[k] for k in ("tau", "conflicts") if k in done.losses}
            print(seed, name, {k: round(v, 2) for k, v in found[name].items()}, file=sys.stderr, flush=True)
    return found


def report(data: dict[str, Any]) -> list[str]:
    """The table in Markdown."""
    runs = list(data["runs"].values())

    def mean(of: list[float], digits: int = 1) -> str:
        spread = f" ± {statistics.stdev(of):.{digits}f}" if len(of) > 1 else ""
        return f"{statistics.mean(of):.{digits}f}{spread}"

    def gain(name: str) -> str:
        apart = [run[name]["miou"] - run["plain"]["miou"] for run in runs]
        return ("+" if statistics.mean(apart) >= 0 else "") + mean(apart)

    plain, labels = mean([run["plain"]["miou"] for run in runs]), mean([run["inputs"]["labels"] for run in runs])
    lines = [
        f"`{data['command']}`",
        "",
        f"{data['count']} scenes of {SIDE}x{SIDE} pixels: {FIRST} epochs of plain cross-entropy, then {data['epochs']} "
        f"of each row's loss with a new head; mIoU on {data['count'] // 2} other scenes, mean ± standard deviation of "
        f"{len(runs)} seeds. The labels' own mIoU is {labels}; **plain cross-entropy ends at {plain}**. The columns on "
        "the right are differences from it (same scenes, labels and start). The saliency's mIoU is that of its two "
        "halves, cut at one half, against the masks; tau and conflicts are those against the labels that the last "
        "steps logged.",
        "",
    ]
    body = []
    for kind, called in KINDS.items():
        cells = [mean([run["inputs"][kind] for run in runs])]
        first = f"{kind} {data['alphas'][0]:g} tau"
        cells += [f"{statistics.mean(run[first][what] for run in runs):.2f}" for what in ("tau", "conflicts")]
        for alpha in data["alphas"]:
            cells += [gain(f"{kind} {alpha:g} {which}") for which in ("tau", "fixed")]
        body.append([called, *cells])
    columns = [f"alpha {alpha:g}{also}" for alpha in data["alphas"] for also in ("", ", tau = 1")]
    return [*lines, *table(["saliency", "its mIoU", "tau", "conflicts", *columns], body)]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--alphas", nargs="+", type=float, default=[0.08, 0.5], help="weights of the loss")
    parser.add_argument("--count", type=int, default=200, help="scenes to train on")
    parser.add_argument("--epochs", type=int, default=12)
    add_result_options(parser)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    facts: dict[str, Any] = {
        **describe_run("torchvision", "lightning", "numpy"),
        "count": args.count,
        "epochs": args.epochs,
        "alphas": args.alphas,
    }
    tell(
        args,
        lambda: by_seed(args, facts, lambda seed: run(seed, args.alphas, args.count, args.epochs)),
        report,
        "refinement",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
