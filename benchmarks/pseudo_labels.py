"""From seeds to pseudo-labels on real photographs: the tables of docs/pseudo_labels.md.

    python benchmarks/pseudo_labels.py --data VOCdevkit/VOC2012 --weights voc_animals_lite0.pt \
        --json docs/figures/pseudo_labels.json
    python benchmarks/pseudo_labels.py --load docs/figures/pseudo_labels.json --markdown docs/pseudo_labels.md

Every figure is what a `camplug` command says; all commands are in the JSON file. They leave their files in the folder
pseudo_labels_cache, and a run that was stopped goes on where it was. Thresholds are chosen on train; where a CRF
follows, on every n-th image of it, since each threshold needs CRFs of its own.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from chain import LISTS, Chain, scores
from markdown_tables import table
from results import add_result_options, describe_run, tell

VIEWS = "scales=(1, 1.5, 2)"
ROWS = {
    "cam": ("CAM (four scales + flip)", "MultiView(CAM)"),
    "fully": (
        "Fully-CAM (best recipe)",
        f"Compete(MultiView(FullyCAM(channel_norm=False), {VIEWS}), judge=MultiView(CAM, {VIEWS}))",
    ),
}
# found on train: labels that are right where they say something, and the walk's numbers
LABELS = {
    "cam": {"irn": ["--foreground", "0.5", "--background", "0.22"], "affinitynet": ["--low", "1.5", "--high", "6"]},
    "fully": {"irn": ["--foreground", "0.36", "--background", "0.2"], "affinitynet": ["--low", "2", "--high", "6"]},
}
TRAINING = {
    "irn": shlex.split("--optimizer adamw --lr 0.003 --epochs 4 --batch 8 --crop 320 --scales 0.5,1.5 --width 64"),
    "affinitynet": shlex.split("--optimizer adamw --lr 0.003 --epochs 4 --batch 8 --crop 320 --scales 0.75,1.25"),
}
WALKS = {"irn": ["--beta", "10", "--power", "1.5", "--clear", "0"], "affinitynet": ["--alpha", "4", "--beta", "8"]}
VARIANTS = {  # of IRN's walk, tried on some of train
    "as in IRN": [],
    "--power 1.5": ["--power", "1.5"],
    "--clear 0": ["--clear", "0"],
    "--clear 0 --power 1.5": ["--clear", "0", "--power", "1.5"],
    "--clear 0 --power 1.5 --beta 5": ["--clear", "0", "--power", "1.5", "--beta", "5"],
    "--clear 0 --power 1.5 --steps 64": ["--clear", "0", "--power", "1.5", "--steps", "64"],
}
AROUND = (-0.06, -0.03, 0.0, 0.03, 0.06)  # thresholds tried before a CRF, around the best without one


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="VOCdevkit/VOC2012")
    parser.add_argument("--weights", type=Path, help="state dict of the 20-class classifier")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument(
        "--crf-every", type=int, default=8, help="choose thresholds before a CRF on every n-th of train"
    )
    parser.add_argument("--cache", type=Path, default=Path("pseudo_labels_cache"))
    add_result_options(parser)
    return parser.parse_args(argv)


def of_maps(chain: Chain, name: str) -> dict[str, Any]:
    """Seeds, or walked maps, of both splits: the best threshold on train, and what it gives on both."""
    folder = {split: chain.cache / f"{name}_{split}" for split in ("train", "val")}
    on_train = chain.evaluate(folder["train"], "train")
    threshold = on_train["best_threshold_here"]
    on_val = chain.evaluate(folder["val"], "val", "--threshold", threshold)
    return {"train": scores(on_train), "val": scores(on_val), "threshold": threshold}


def with_crf(chain: Chain, name: str, best: float) -> dict[str, Any]:
    """A dense CRF over the maps: its threshold chosen on some of train, then both splits."""

    def labels(threshold: float, split: str) -> dict[str, Any]:
        source = chain.cache / f"{name}_{'val' if split == 'val' else 'train'}"
        out = chain.cache / f"{name}_crf_{threshold:g}_{split}"
        given = ["--threshold", f"{threshold:g}", "--crf", "irn", "--out", out]
        chain.camplug("pseudo-labels", source, *chain.on(split), *given)
        return chain.evaluate(out, split)

    tried = {}
    for step in AROUND:
        threshold = round(best + step, 2)
        tried[threshold] = scores(labels(threshold, "some"))["miou"]
    threshold = max(tried, key=lambda t: tried[t])
    found = {split: scores(labels(threshold, split), threshold) for split in ("train", "val")}
    return {**found, "threshold": threshold, "tried": tried}


def measured_row(chain: Chain, row: str, weights: Path) -> dict[str, Any]:
    """All columns of one row."""
    model = ["--checkpoint", weights, "--num-classes", 20]
    for split in ("train", "val"):
        given = [*chain.on(split), *model, "--long-side", 320, "--explainer", ROWS[row][1]]
        chain.camplug("seeds", *given, "--out", chain.cache / f"{row}_{split}")
    columns: dict[str, Any] = {"seeds": of_maps(chain, row)}
    columns["crf"] = with_crf(chain, row, columns["seeds"]["threshold"])
    minutes = {}
    for walk, kind in (("affinitynet", "affinitynet"), ("irn", "irn")):
        heads = chain.cache / f"{row}_{kind}"
        seeds = chain.cache / f"{row}_train"
        given = [*chain.on("train"), *model, *LABELS[row][kind], *TRAINING[kind], "--device", "cpu", "--out", heads]
        trained = chain.camplug("train", kind, seeds, *given)
        minutes[walk] = trained["seconds"] / 60
        for split in ("train", "val"):
            given = [*chain.on(split), "--weights", heads / f"{kind}.pt", *WALKS[walk], "--maps"]
            source, out = (chain.cache / f"{row}{of}_{split}" for of in ("", f"_{walk}"))
            chain.camplug("pseudo-labels", source, *given, "--device", "cpu", "--out", out)
        columns[walk] = of_maps(chain, f"{row}_{walk}")
        columns[f"{walk}_crf"] = with_crf(chain, f"{row}_{walk}", columns[walk]["threshold"])
    return {
        "label": ROWS[row][0],
        "explainer": ROWS[row][1],
        "columns": columns,
        "variants": variants(chain, row),
        "training_minutes": minutes,
    }


def variants(chain: Chain, row: str) -> dict[str, dict[str, Any]]:
    """mIoU of some of train after IRN's walk with other numbers, at the best threshold there."""
    found = {}
    for n, (name, options) in enumerate(VARIANTS.items()):
        out = chain.cache / f"{row}_irn_variant_{n}"
        given = [*chain.on("some"), "--weights", chain.cache / f"{row}_irn" / "irn.pt", *options, "--maps"]
        chain.camplug("pseudo-labels", chain.cache / f"{row}_train", *given, "--device", "cpu", "--out", out)
        found[name] = scores(chain.evaluate(out, "some"))
    return found


COLUMNS = {
    "seeds": "seeds",
    "crf": "+ CRF",
    "affinitynet": "+ AffinityNet walk",
    "affinitynet_crf": "+ AffinityNet walk + CRF",
    "irn": "+ IRN walk",
    "irn_crf": "+ IRN walk + CRF",
}


def everything(args: argparse.Namespace) -> dict[str, Any]:
    chain = Chain(args.data, args.cache)
    ids = LISTS[0].read_text().split()
    chain.keep_every(args.crf_every, ids, "some_of_train")
    rows = {row: measured_row(chain, row, args.weights) for row in args.rows}
    return {
        **describe_run("torchvision", "timm", "numpy", "scipy"),
        "crf_every": args.crf_every,
        "images": {"train": len(ids), "val": len(LISTS[1].read_text().split())},
        "rows": rows,
        "commands": chain.commands,
    }


def report(data: dict[str, Any]) -> list[str]:
    """The tables in Markdown."""
    lines = [f"`{data['command']}`", ""]
    lines += [
        f"Thresholds chosen on train ({data['images']['train']} images; before a CRF on every {data['crf_every']}th of "
        f"them), val ({data['images']['val']} images) reported; mIoU-7 val, in brackets train.",
        "",
    ]
    body = []
    for row in data["rows"].values():
        cells = [row["columns"][c] for c in COLUMNS]
        body.append([row["label"], *(f"{c['val']['miou']:.1f} ({c['train']['miou']:.1f})" for c in cells)])
    lines += table(["", *COLUMNS.values()], body)
    lines += ["Mean precision and recall of the six classes on train, and the threshold:", ""]
    body = []
    for row in data["rows"].values():
        for name, title in COLUMNS.items():
            c = row["columns"][name]
            numbers = (f"{c['train'][k]:.1f}" for k in ("precision", "recall"))
            body.append([f"{row['label'].split(' (')[0]}, {title}", *numbers, f"{c['threshold']:.2f}"])
    lines += table(["", "precision", "recall", "threshold"], body)
    lines += [
        f"Numbers of IRN's walk, mIoU-7 on every {data['crf_every']}th image of train at the best threshold there:",
        "",
    ]
    rows = list(data["rows"].values())
    body = [[name, *(f"{row['variants'][name]['miou']:.1f}" for row in rows)] for name in VARIANTS]
    lines += table(["", *(row["label"] for row in rows)], body)
    minutes = (
        f"{row['label']} {', '.join(f'{w} {m:.1f}' for w, m in row['training_minutes'].items())}" for row in rows
    )
    return [*lines, f"Minutes of training, labels included: {'; '.join(minutes)}.", ""]


def main(argv: list[str]) -> None:
    args = parsed(argv)
    if args.load is None and (args.data is None or args.weights is None):
        raise SystemExit("give --data and --weights, or --load a result.")
    tell(args, lambda: everything(args), report, "pseudo_labels")


if __name__ == "__main__":
    main(sys.argv[1:])
