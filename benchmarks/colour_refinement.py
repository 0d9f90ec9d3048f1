"""Refinements of seeds by colours, without training: a table of docs/pseudo_labels.md.

    python benchmarks/colour_refinement.py --data VOCdevkit/VOC2012 --weights voc_animals_lite0.pt \
        --json docs/figures/colour_refinement.json
    python benchmarks/colour_refinement.py --load docs/figures/colour_refinement.json --markdown docs/pseudo_labels.md

Thresholds are chosen on every third image of train. Maps after the walk and after PAR are swept over thresholds like
seeds: PAR leaves a constant background as it is, so labels are the same whether scores or maps are averaged. The dense
CRF starts from labels, so a few thresholds around the seeds' best one are tried. Seeds are kept in --cache, and rows in
--json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chain import CLASSES, LISTS, Chain
from markdown_tables import table
from numpy.typing import NDArray
from results import add_result_options, describe_run, tell

from camplug.metrics import ConfusionMatrix, Scores, ThresholdSweep
from camplug.wsss.crf import pixel_adaptive_refinement
from camplug.wsss.data import VOC
from camplug.wsss.pseudo import ColourWalk, PseudoLabels, Threshold, renumber_to_data
from camplug.wsss.seeds import SeedFolder

ROWS = {
    "propagated": ("Fully-CAM, propagated", "Propagate(FullyCAM(channel_norm=False))"),
    "plain": ("Fully-CAM", "FullyCAM(channel_norm=False)"),
}
COLUMNS = {"seeds": "seeds", "colour": "+ walk over colours", "par": "+ PAR", "crf": "+ dense CRF"}
EVERY = 3  # part of train that thresholds are chosen on
AROUND = (-0.04, 0.0, 0.04)  # thresholds tried before the CRF, around the best without one
INDICES = [0, *(VOC.classes.index(name) + 1 for name in CLASSES.split(","))]
Maps = NDArray[np.float32]


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="VOCdevkit/VOC2012")
    parser.add_argument("--weights", type=Path, help="state dict of the 20-class classifier")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--cache", type=Path, default=Path("pseudo_labels_cache"))
    add_result_options(parser)
    return parser.parse_args(argv)


class Measured:
    """Scores of a row on one split, and seconds of each refinement.

    Args:
        data: images.
        seeds: their seeds.
    """

    def __init__(self, data: VOC, seeds: SeedFolder) -> None:
        self.data, self.seeds = data, seeds
        self.sweeps = {name: ThresholdSweep(21) for name in ("seeds", "colour", "par")}
        self.seconds = dict.fromkeys(COLUMNS, 0.0)

    def add_maps(self) -> None:
        """Sweep over the thresholds of all columns of maps."""
        walk = ColourWalk(0.0)
        for i, (photo, maps, classes) in enumerate(self._images()):
            refined = {
                "seeds": maps,
                "colour": self._timed("colour", lambda photo=photo, maps=maps: walk.maps(photo, maps)),
                "par": self._timed("par", lambda photo=photo, maps=maps: pixel_adaptive_refinement(photo, maps)),
            }
            for name, planes in refined.items():
                self.sweeps[name].add(planes.clip(0, 1), classes, self.data.mask(i))

    def add_crf(self, thresholds: list[float]) -> dict[float, ConfusionMatrix]:
        """Count the labels of dense CRFs after some thresholds."""
        matrices = {t: ConfusionMatrix(21) for t in thresholds}
        for i, (photo, maps, classes) in enumerate(self._images()):
            for t, matrix in matrices.items():
                make = PseudoLabels(Threshold(t), "irn")
                labels = self._timed("crf", lambda make=make, photo=photo, maps=maps: make(photo, maps))
                matrix.add(renumber_to_data(labels, classes), self.data.mask(i))
        self.seconds["crf"] /= len(thresholds)
        return matrices

    def _images(self) -> Any:
        for i, name in enumerate(self.data.ids):
            seed = self.seeds.load(name)
            yield np.asarray(self.data.photo(i)), seed.to_full_size(), seed.classes
            if i % 20 == 0:
                print(f"{self.seeds.path}: {i} of {len(self.data)}", file=sys.stderr, flush=True)

    def _timed(self, name: str, work: Any) -> Any:
        start = time.process_time()
        result = work()
        self.seconds[name] += time.process_time() - start
        return result


def scores(matrix: Any, threshold: float) -> dict[str, float]:
    """mIoU, and mean precision and recall of the animals and persons, in %."""
    found = Scores.of(matrix, ["background", *VOC.classes], INDICES).as_dict()
    rows = [found["per_class"][VOC.classes[c - 1]] for c in INDICES[1:]]
    known = {name: [row[name] for row in rows if row[name] is not None] for name in ("precision", "recall")}
    mean = {name: 100 * float(np.mean(values)) for name, values in known.items()}
    return {"miou": 100 * found["miou"]["present"], **mean, "threshold": threshold}


def measured_row(chain: Chain, row: str, weights: Path) -> dict[str, Any]:
    """All columns of one row."""
    label, explainer = ROWS[row]
    measured = {}
    for split, listed in (("train", "third"), ("val", "val")):
        given = [*chain.on(listed), "--checkpoint", weights, "--num-classes", 20, "--long-side", 320]
        folder = chain.cache / f"{row}_{split}"
        chain.camplug("seeds", *given, "--explainer", explainer, "--out", folder)
        data = VOC(chain.data, str(chain.on(listed)[-1]))
        measured[split] = Measured(data, SeedFolder(folder).renumber(data.classes))
        measured[split].add_maps()
    columns = {}
    for name, sweep in measured["train"].sweeps.items():
        best = sweep.best("present", INDICES)[0]
        columns[name] = {split: scores(one.sweeps[name].at(best), best) for split, one in measured.items()}
    tried = [round(columns["seeds"]["train"]["threshold"] + step, 2) for step in AROUND]
    on_train = {t: scores(matrix.matrix, t) for t, matrix in measured["train"].add_crf(tried).items()}
    best = max(tried, key=lambda t: on_train[t]["miou"])
    on_val = measured["val"].add_crf([best])[best].matrix
    columns["crf"] = {"train": on_train[best], "val": scores(on_val, best)}
    count = len(measured["val"].data)
    seconds = {name: value / count for name, value in measured["val"].seconds.items()}
    facts = {"label": label, "explainer": explainer, "commands": chain.commands[-2:]}
    return {**facts, "columns": columns, "seconds": seconds}


def everything(args: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    chain = Chain(args.data, args.cache)
    ids = chain.keep_every(EVERY, LISTS[0].read_text().split(), "third")
    kept = json.loads(args.json.read_text())["rows"] if args.json is not None and args.json.exists() else {}
    rows = kept | {row: measured_row(chain, row, args.weights) for row in args.rows if row not in kept}
    return {
        **describe_run("torchvision", "timm", "numpy", "scipy"),
        "images": {"train": len(ids), "val": len(LISTS[1].read_text().split())},
        "rows": rows,
    }


def report(data: dict[str, Any]) -> list[str]:
    """The table in Markdown."""
    lines = [f"`{data['command']}`", ""]
    lines += [
        f"Long side 320 px; thresholds chosen on every {EVERY}rd image of train ({data['images']['train']}), "
        f"{data['images']['val']} images of val reported, in brackets train. CPU seconds of a refinement, one thread.",
        "",
    ]
    body = []
    for row in data["rows"].values():
        for name, title in COLUMNS.items():
            val, train = (row["columns"][name][split] for split in ("val", "train"))
            numbers = [f"{val['miou']:.1f} ({train['miou']:.1f})", f"{val['precision']:.1f}", f"{val['recall']:.1f}"]
            seconds = f"{row['seconds'][name]:.2f}" if name != "seeds" else ""
            body.append([f"{row['label']}, {title}", *numbers, f"{val['threshold']:.2f}", seconds])
    return [*lines, *table(["", "mIoU-7 val", "precision", "recall", "threshold", "s / image"], body)]


def main(argv: list[str]) -> None:
    args = parsed(argv)
    if args.load is None and (args.data is None or args.weights is None):
        raise SystemExit("give --data and --weights, or --load a result.")
    tell(args, lambda: everything(args), report, "colour_refinement")


if __name__ == "__main__":
    main(sys.argv[1:])
