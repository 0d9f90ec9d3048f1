"""Training-time methods on real photographs, at equal budgets: the tables of docs/training.md.

    python benchmarks/training.py --data VOCdevkit/VOC2012 --json docs/figures/training.json
    python benchmarks/training.py --load docs/figures/training.json --markdown docs/training.md
    python benchmarks/training.py --data VOCdevkit/VOC2012 --rows classifier context fum_residual rpnet2_scales \
        rpnet2_ramp --seeds classifier context --json docs/figures/training_seeds.json
    python benchmarks/training.py --load docs/figures/training_seeds.json --markdown docs/training.md

Every figure is what a `camplug` command says; all commands are in the JSON file. They leave their files in the folder
training_cache, and a run that was stopped goes on where it was. Networks learn from image-level labels alone; the
background threshold of each row is chosen on every n-th image of train, and val is reported.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from chain import LISTS, Chain, scores
from markdown_tables import table
from results import add_result_options, describe_run, tell

EXPLAINERS = {"cam": "CAM", "fully": "FullyCAM(channel_norm=False)"}
BUDGET = shlex.split("--preset modern --cut 8 --batch 16 --crop 224 --sides 224,336 --device cpu")
SCALES = ["--scales", "1,0.5"]  # of RPNet's target; four scales take three times as long
PAIRS = ["--images", "2", "--no-each-first"]  # as many crops in an epoch as the other rows
LAST, PRESENT = ["--level", "last"], ["--average", "present"]  # as the module and the losses were first
OFF = ["--no-enhance", "--no-decrease"]
ALONE = ["--no-atrous", "--no-channel-attention", "--no-spatial-attention"]
ROWS: dict[str, tuple[str, str, list[str]]] = {  # label, method, options
    "classifier": ("classifier", "classifier", []),
    "atm": ("+ ATM", "atm", ["--no-fum", *PRESENT]),
    "atm_ramp": ("+ ATM, ramp 0.5", "atm", ["--no-fum", *PRESENT, "--ramp", "0.5"]),
    "fum": ("+ FUM", "atm", [*OFF, *LAST]),
    "atm_fum": ("+ ATM + FUM", "atm", [*LAST, *PRESENT]),
    "fum_residual": ("+ FUM, residual", "atm", [*OFF, *LAST, "--residual"]),
    "context": ("+ FUM's context alone", "atm", [*OFF, *LAST, *ALONE]),
    "centred": ("+ context alone, centred", "atm", [*OFF, *ALONE, *LAST, "--centred"]),
    "atm_centred": ("+ ATM + context alone, centred", "atm", [*ALONE, *LAST, *PRESENT, "--centred"]),
    "atm_centred_ramp": (
        "+ ATM, ramp 0.5, + context alone, centred",
        "atm",
        [*ALONE, *LAST, *PRESENT, "--centred", "--ramp", "0.5"],
    ),
    "rpnet_neck": ("RPNet's neck alone", "rpnet", ["--weight", "0", "--no-each-first"]),
    "rpnet1": ("RPNet, 1 image", "rpnet", ["--images", "1", *SCALES]),
    "rpnet2": ("RPNet, 2 images", "rpnet", [*PAIRS, *SCALES]),
    "rpnet2_scales": ("RPNet, 2 images, four scales", "rpnet", PAIRS),
    "rpnet2_ramp": ("RPNet, 2 images, four scales, ramp 0.5", "rpnet", [*PAIRS, "--ramp", "0.5"]),
    "more": ("classifier, on", "fpr", ["--region-contrast", "0", "--pixel-rectification", "0"]),
    "atm_on": ("ATM, on", "atm", ["--no-fum", *PRESENT]),
    "atm_centred_on": ("ATM + context alone, centred, on", "atm", [*ALONE, *LAST, *PRESENT, "--centred"]),
    "rc": ("FPR, L_RC", "fpr", ["--pixel-rectification", "0"]),
    "fpr": ("FPR, L_RC + L_PR", "fpr", []),
    "fpr_l2": ("FPR, L_RC + L_PR, L2 distance", "fpr", ["--distance", "l2"]),
}


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="VOCdevkit/VOC2012, with ImageSets/Segmentation/train_aug.txt")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", default=[], metavar="ROW", help="rows that are run with seeds 1, 2 too")
    parser.add_argument("--epochs", type=int, default=2, help="FPR goes on with the classifier for half as many")
    parser.add_argument("--every", type=int, default=3, help="choose thresholds on every n-th image of train")
    parser.add_argument("--cache", type=Path, default=Path("training_cache"))
    add_result_options(parser)
    return parser.parse_args(argv)


def trained(chain: Chain, row: str, seed: int, epochs: int) -> dict[str, Any]:
    """What `camplug train` says."""
    _, method, options = ROWS[row]
    start, n = ["--model", "demo"], epochs
    if method == "fpr" or row.endswith("_on"):
        start, n = ["--model", trained(chain, "classifier", seed, epochs)["file"]], max(1, epochs // 2)
    data = ["--data", f"voc:{chain.data}", "--split", "train_aug"]
    given = [*data, *start, *BUDGET, *options, "--epochs", n, "--seed", seed, "--out", chain.cache / f"{row}_{seed}"]
    return chain.camplug("train", method, *given)


def measured_row(chain: Chain, row: str, seed: int, epochs: int) -> dict[str, Any]:
    """Seeds of the trained classifier by all explainers."""
    done = trained(chain, row, seed, epochs)
    found: dict[str, Any] = {"minutes": done["seconds"] / 60, "losses": done["losses"]}
    for name, explainer in EXPLAINERS.items():
        for split in ("some", "val"):
            out = chain.cache / f"{row}_{seed}_{name}_{split}"
            given = [*chain.on(split), "--model", done["file"], "--long-side", 320, "--explainer", explainer]
            chain.camplug("seeds", *given, "--out", out)
        threshold = chain.evaluate(chain.cache / f"{row}_{seed}_{name}_some", "some")["best_threshold_here"]
        report = chain.evaluate(chain.cache / f"{row}_{seed}_{name}_val", "val", "--threshold", threshold)
        per_class = {c: r for c, r in report["per_class"].items() if c in report["averaged_over"]}
        objects = {c: r for c, r in per_class.items() if c != "background"}
        fdr = {c: None if r["precision"] is None else 100 * (1 - r["precision"]) for c, r in objects.items()}
        iou = {c: 100 * r["iou"] for c, r in per_class.items()}
        recall = {c: 100 * r["recall"] for c, r in objects.items()}
        found[name] = {**scores(report), "threshold": threshold, "fdr": fdr, "iou": iou, "recall_of": recall}
    return found


def everything(args: argparse.Namespace) -> dict[str, Any]:
    chain = Chain(args.data, args.cache)
    some = chain.keep_every(args.every, LISTS[0].read_text().split(), "some_of_train")
    rows = {
        row: [measured_row(chain, row, seed, args.epochs) for seed in ((0, 1, 2) if row in args.seeds else (0,))]
        for row in args.rows
    }
    return {
        **describe_run("torchvision", "timm", "lightning", "numpy"),
        "epochs": args.epochs,
        "every": args.every,
        "images": {"train": len(some), "val": len(LISTS[1].read_text().split())},
        "rows": rows,
        "commands": chain.commands,
    }


def report(data: dict[str, Any]) -> list[str]:
    """The tables in Markdown."""
    half = max(1, data["epochs"] // 2)
    lines = [f"`{data['command']}`", ""]
    lines += [
        f"EfficientNet-Lite0, {data['epochs']} epochs of train_aug at 224 pixels from ImageNet weights; FPR and the "
        f'rows called "on" go on with the first row\'s classifier for {half} more, so "classifier, on" is what they '
        "are to be compared with. mIoU-7, and the means of precision, recall and false discovery rate over the six "
        f"classes, on val ({data['images']['val']} images, one view); thresholds from train "
        f"({data['images']['train']} of its images). Minutes are of training on one core that others used, too; - "
        "means that no pixel was called an object.",
        "",
    ]
    for name, explainer in EXPLAINERS.items():
        body = []
        for row, runs in data["rows"].items():
            cells = []
            for of in ("miou", "precision", "recall"):
                values = [run[name][of] for run in runs]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{_mean(values)}{spread}")
            fdr = [None if run[name]["precision"] is None else 100 - run[name]["precision"] for run in runs]
            cells.append(_mean(fdr))
            cells.append(f"{statistics.mean(run['minutes'] for run in runs):.0f}")
            body.append([ROWS[row][0], *cells])
        lines += [f"Seeds by {explainer}:", "", *table(["", "mIoU-7", "precision", "recall", "FDR", "minutes"], body)]
    first = next(iter(data["rows"].values()))[0]
    classes = list(first["cam"]["fdr"])
    for what, title in (("fdr", "False discovery rate"), ("recall_of", "Recall")):
        body = [
            [ROWS[row][0], *(_mean([r["cam"][what][c] for r in runs]) for c in classes)]
            for row, runs in data["rows"].items()
        ]
        lines += [f"{title} by class, CAM seeds on val:", "", *table(["", *classes], body)]
    return lines


def _mean(values: list[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{statistics.mean(known):.1f}" if known else "-"  # no pixel was called so


def main(argv: list[str]) -> None:
    args = parsed(argv)
    if args.load is None and args.data is None:
        raise SystemExit("give --data, or --load a result.")
    tell(args, lambda: everything(args), report, args.load.stem if args.load else "training")


if __name__ == "__main__":
    main(sys.argv[1:])
