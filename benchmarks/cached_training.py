"""Training-time methods on cached features: rows of a minute that can rank a point, for docs/training.md.

    python benchmarks/cached_training.py --data VOCdevkit/VOC2012 --weights weights --json docs/figures/cached.json
    python benchmarks/cached_training.py --data VOCdevkit/VOC2012 --weights weights --every 3 \
        --views original 0.5 1.5 2.0 --rows ordinary rpnet_scales rpnet_classes --json docs/figures/cached_rpnet.json
    python benchmarks/cached_training.py --load docs/figures/cached.json --markdown docs/training.md

The first run caches EfficientNet-Lite0's maps of stride 16 of all 3131 photographs, in three views; `--views` adds
those of other sizes, which RPNet compares. The layers up to there are frozen, each row trains those behind by the
package's own methods. The background threshold comes from every third image of train; val is reported, and train is
what settings are chosen on. What the JSON file holds is not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cached_features import CLASSES, CROP, GREY, VIEWS, CachedCrops, connect, load_network, score, write_cache
from cached_rows import ROWS
from device_data import facts, opened
from markdown_tables import table
from numpy.typing import NDArray
from results import add_result_options, command_line, tell

from camplug.wsss.classifier import build_classifier, get_preset
from camplug.wsss.data import SegmentationData
from camplug.wsss.train.fit import fit

SETTINGS = ("epochs", "steps", "batch", "lr", "every")
MEASURES = ("miou", "precision", "recall", "fdr", "train")


class Relabelled(SegmentationData):
    """Photographs of which only some classes are labelled."""

    def __init__(self, data: SegmentationData, classes: tuple[str, ...]) -> None:
        self.data, self.kept = data, {data.classes.index(c) for c in classes}
        self.ids, self.classes, self.has_masks = data.ids, data.classes, data.has_masks

    def labels(self, i: int) -> tuple[int, ...]:
        return tuple(c for c in self.data.labels(i) if c in self.kept)

    def photo(self, i: int) -> Any:
        return self.data.photo(i)

    def mask(self, i: int) -> NDArray[np.uint8]:
        return self.data.mask(i)


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="VOCdevkit/VOC2012 with a list train_aug")
    parser.add_argument("--weights", type=Path, help="folder with voc_animals_lite0.pt")
    parser.add_argument("--cache", type=Path, default=Path("cached_features"), help="folder of the features")
    parser.add_argument("--views", nargs="*", default=list(GREY), choices=VIEWS, help="views that are cached")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-4, help="learning rate of the layers before the head")
    parser.add_argument(
        "--every", type=int, default=1, help="train on every n-th photograph; views are cached for them"
    )
    parser.add_argument("--steps", type=int, help="steps of an epoch, on photographs drawn by the seed; all by default")
    add_result_options(parser)
    return parser.parse_args(argv)


def run_row(args: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Train one row and score its seeds."""
    row = ROWS[name]
    whole = opened(args.data, "train_aug")
    data = Relabelled(whole, row.classes) if row.classes else whole
    epochs = args.epochs if row.epochs is None else row.epochs
    torch.manual_seed(seed)
    network = build_classifier(
        load_network(args.weights),
        data.classes,
        neck=row.method.get_neck_settings(),
        keep_head=False if row.new_head else None,
    )
    numbers = np.arange(0, len(data), args.every)
    drawn = np.random.default_rng(seed).permutation(numbers)[: args.steps and args.steps * args.batch]
    crops = CachedCrops(data, args.cache, seed=seed, indices=sorted(drawn.tolist()), every=args.every)
    learning, _ = get_preset("modern")
    learning = replace(learning, schedule=replace(learning.schedule, lr=args.lr))
    module = row.method.make_module(network, learning, crops)
    connect(module, crops)
    began, losses = time.process_time(), dict[str, float]()
    if epochs:
        with tempfile.TemporaryDirectory() as folder:
            items, batch = row.method.make_items(crops), args.batch // row.method.group
            losses = fit(module, items, Path(folder), epochs=epochs, batch=batch, device="cpu", progress=False)
    seconds = time.process_time() - began
    found = score(network, args, row.classes or CLASSES)
    return {"row": name, "seed": seed, "seconds": seconds, "losses": losses, **found}


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Train what the file does not hold, seed by seed."""
    write_cache(args)
    data = {"command": command_line(), "machine": facts("cpu"), "rows": []}
    data |= {name: getattr(args, name) for name in SETTINGS}
    if args.json is not None and args.json.exists():
        kept = json.loads(args.json.read_text())
        if any(({"every": 1} | kept)[name] != data[name] for name in SETTINGS):
            raise SystemExit(f"{args.json} holds rows of other {', '.join(SETTINGS)}; give another file, or delete it.")
        data["rows"] = kept["rows"]
    there = {(row["row"], row["seed"]) for row in data["rows"]}
    for seed in args.seeds:
        for name in args.rows:
            if (name, seed) not in there:
                data["rows"].append(run_row(args, name, seed))
                print({k: v for k, v in data["rows"][-1].items() if k != "losses"}, file=sys.stderr, flush=True)
                if args.json is not None:
                    args.json.write_text(json.dumps(data, indent=1) + "\n")
    return data


def report(data: dict[str, Any]) -> list[str]:
    """The tables in Markdown, one for each row that others are compared with."""
    images = len(range(0, 3131, data.get("every", 1)))
    length = f"{data['batch'] * data['steps']} of {images}" if data["steps"] else str(images)
    epochs = f"{data['epochs']} epoch{'s' if data['epochs'] > 1 else ''}"
    lines = [
        f"`{data['command']}`",
        "",
        f"EfficientNet-Lite0 behind its last map of stride 16, {epochs} of {length} photographs at "
        f"{CROP} pixels on cached features, going on with the trained classifier. CAM's seeds on val (222 images, one "
        "view) at the threshold of train, mean ± standard deviation over seeds; in brackets the mean difference from "
        "the first row of the table, seed by seed, ± its standard deviation. The last but one column is mIoU-7 on "
        "every third image of train, at its best threshold; seconds are of CPU.",
        "",
    ]
    by_name = {name: [r for r in data["rows"] if r["row"] == name] for name in ROWS}
    for base in (name for name, row in ROWS.items() if not row.base and by_name[name]):
        names = [name for name in ROWS if by_name[name] and base in (name, ROWS[name].base)]
        usual = {row["seed"]: row for row in by_name[base]}
        body = [
            [
                ROWS[name].label,
                str(len(by_name[name])),
                *(cell(by_name[name], {} if name == base else usual, what) for what in MEASURES),
                f"{np.mean([row['seconds'] for row in by_name[name]]):.0f}",
            ]
            for name in names
        ]
        lines += table(["", "seeds", "mIoU-7", "precision", "recall", "FDR", "on train", "s"], body)
    return lines


def cell(rows: list[dict[str, Any]], usual: dict[int, dict[str, Any]], what: str) -> str:
    values = [row[what] for row in rows]
    text = f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")
    pairs = [row[what] - usual[row["seed"]][what] for row in rows if row["seed"] in usual]
    if not pairs:
        return text
    spread = f" ± {np.std(pairs, ddof=1):.1f}" if len(pairs) > 1 else ""
    return f"{text} ({np.mean(pairs):+.1f}{spread})"


def main(argv: list[str]) -> None:
    torch.set_num_threads(1)
    args = parsed(argv)
    if args.load is None and (args.data is None or args.weights is None):
        raise SystemExit("give --data and --weights, or --load a result.")
    tell(args, lambda: measured(args), report, args.load.stem if args.load else "cached")


if __name__ == "__main__":
    main(sys.argv[1:])
