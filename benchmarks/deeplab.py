"""From image-level labels to a segmentation network on real photographs: the tables of docs/deeplab.md.

    python benchmarks/deeplab.py --data VOCdevkit/VOC2012 --weights voc_animals_lite0.pt \
        --json docs/figures/deeplab.json
    python benchmarks/deeplab.py --load docs/figures/deeplab.json --markdown docs/deeplab.md

Seeds, IRN, pseudo-labels, DeepLab, each by one `camplug` command, all of which are in the JSON file. They leave their
files in the folder deeplab_cache, and a run that was stopped goes on where it was. No mask is read before the figures
are made: the walk's numbers are those that IRN's authors published, thresholds are theirs, or the ones that part the
maps' values best (Otsu).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chain import LISTS, Chain, scores
from markdown_tables import table
from results import add_result_options, describe_run, tell

VIEWS = "scales=(1, 1.5)"
COMPETING = f"Compete(MultiView(FullyCAM(channel_norm=False), {VIEWS}), judge=MultiView(CAM, {VIEWS}))"
PROPAGATED = f"Propagate({COMPETING}, layers=['blocks.2', 'blocks.4'])"
ROWS = {
    "cam": ("CAM", f"MultiView(CAM, {VIEWS})"),
    "fully": ("Fully-CAM", COMPETING),
    "propagated": ("Fully-CAM propagated", PROPAGATED),
    "averaged": ("Fully-CAM, averaged", PROPAGATED),
    "averaged_saliency": ("Fully-CAM, averaged with saliency", PROPAGATED),
}
AVERAGED = ("averaged", "averaged_saliency")  # their labels are those of `average_labels`
LABELS = {  # thresholds of the labels that IRN learns from
    "published": [],
    "otsu": shlex.split("--foreground otsu --background otsu"),
}
THRESHOLD = 0.25  # of seeds, and of the walk as published
SEED_THRESHOLD = dict.fromkeys(("propagated", *AVERAGED), 0.5)  # the best on train
IRN = shlex.split("--optimizer adamw --lr 0.003 --epochs 1 --batch 8 --crop 320 --scales 0.5,1.5 --width 0")
DEEPLAB = shlex.split("--optimizer adamw --lr 0.0002 --weight-decay 0.01 --head aspp --output-stride 16 --cut 8")
CROPS = shlex.split("--batch 12 --crop 256 --long-side 320 --scales 0.75,1.5")
VIEWS_OF_VAL = shlex.split("--long-side 320 --scales 0.75,1,1.5 --flip")
PARTS = {
    "seeds": "seeds",
    "labels": "IRN + CRF: pseudo-labels",
    "deeplab": "DeepLab",
    "deeplab_crf": "DeepLab + CRF",
    "deeplab_given": "DeepLab, labels given",
    "deeplab_crf_given": "+ CRF, labels given",
}


CUTS = {
    "background": "labels of IRN: background up to",
    "foreground": "objects above",
    "walk": "walked maps: background up to",
}
KNOWN = {"otsu": "Otsu, from the values on train", "best": "best on val, by its masks"}


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="VOCdevkit/VOC2012, with ImageSets/Segmentation/train_aug.txt")
    parser.add_argument("--weights", type=Path, help="state dict of the 20-class classifier")
    parser.add_argument("--rows", nargs="+", default=[*ROWS][:-1], choices=list(ROWS))
    parser.add_argument("--saliency", help="saliency network of the row averaged_saliency, as for average-seeds")
    parser.add_argument("--labels", nargs="+", default=list(LABELS), choices=list(LABELS))
    parser.add_argument("--every", type=int, default=3, help="train on every n-th image of train_aug")
    parser.add_argument("--epochs", type=int, default=12, help="of DeepLab")
    parser.add_argument("--cache", type=Path, default=Path("deeplab_cache"))
    add_result_options(parser)
    return parser.parse_args(argv)


def named(row: str, labels: str) -> str:
    """What the files of a chain after its seeds begin with."""
    return row if labels == "published" or row in AVERAGED else f"{row}_{labels}"


def labels_of(chain: Chain, row: str, labels: str, weights: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Seeds and pseudo-labels of the images to train on, and those of val by the same heads: thresholds of IRN's
    labels, minutes of each command."""
    model = ["--checkpoint", weights, "--num-classes", 20]
    minutes = {}
    for split in ("part", "val"):
        given = [*chain.on(split), *model, "--long-side", 320, "--explainer", ROWS[row][1]]
        minutes[f"seeds, {split}"] = chain.camplug("seeds", *given, "--out", chain.cache / f"{row}_{split}")["seconds"]
    name = named(row, labels)
    heads = chain.cache / f"{name}_irn"
    given = [*chain.on("part"), *model, *LABELS[labels], *IRN, "--device", "cpu", "--out", heads]
    trained = chain.camplug("train", "irn", chain.cache / f"{row}_part", *given)
    cuts = json.loads((heads / "settings.json").read_text())["labels"]
    minutes["IRN"] = trained["seconds"]
    found = {k: cuts[k] for k in ("background", "foreground")} | {"walk": THRESHOLD}
    for split in ("val", "part") if labels == "published" else ("part", "val"):
        given = [*chain.on(split), "--weights", heads / "irn.pt"]
        seeds, out = chain.cache / f"{row}_{split}", chain.cache / f"{name}_labels_{split}"
        if labels == "published":
            given += ["--crf", "irn", "--device", "cpu"]
            said = [chain.camplug("pseudo-labels", seeds, *given, "--out", out)]
        else:  # the threshold of the images that are trained on cuts those of val, too
            walked = chain.cache / f"{name}_walked_{split}"
            said = [chain.camplug("pseudo-labels", seeds, *given, "--device", "cpu", "--maps", "--out", walked)]
            given = [*chain.on(split), "--threshold", "otsu" if split == "part" else found["walk"], "--crf", "irn"]
            said.append(chain.camplug("pseudo-labels", walked, *given, "--out", out))
            found["walk"] = said[-1]["threshold"]
        minutes[f"labels, {split}"] = sum(one["seconds"] for one in said)
    return found, {k: v / 60 for k, v in minutes.items()}


def name_explainer(row: str, split: str) -> str:
    """Return the explainer of a row's seeds. Those of the images `rest`, twice as many as `part`, are made without
    mirror images, in half of the time."""
    return ROWS[row][1].replace(VIEWS, f"{VIEWS}, flip=False") if split == "rest" else ROWS[row][1]


def average_labels(
    chain: Chain, row: str, weights: Path, saliency: str | None, splits: Sequence[str] = ("part", "val")
) -> tuple[dict[str, float], dict[str, float]]:
    """Like `labels_of`, without a walk behind the average: IRN's heads learn from the propagated seeds of `part` and
    walk the ones that are not propagated; both are averaged, cut at the best threshold on train, and refined by a
    CRF."""
    model = ["--checkpoint", weights, "--num-classes", 20]
    minutes: dict[str, float] = {}
    for kind, split in [(kind, split) for kind in ("propagated", "fully") for split in splits]:
        given = [*chain.on(split), *model, "--long-side", 320, "--explainer", name_explainer(kind, split)]
        said = chain.camplug("seeds", *given, "--out", chain.cache / f"{kind}_{split}")
        minutes[f"seeds, {split}"] = minutes.get(f"seeds, {split}", 0) + said["seconds"] / 60
    heads = chain.cache / "propagated_otsu_irn"
    given = [*chain.on("part"), *model, *LABELS["otsu"], *IRN, "--device", "cpu", "--out", heads]
    minutes["IRN"] = chain.camplug("train", "irn", chain.cache / "propagated_part", *given)["seconds"] / 60
    cut, salient = SEED_THRESHOLD[row], [] if saliency is None else ["--saliency", saliency]
    for split in splits:
        on, cache = chain.on(split), chain.cache
        walk = [
            *on,
            "--weights",
            heads / "irn.pt",
            "--device",
            "cpu",
            "--maps",
            "--out",
            cache / f"fully_walked_{split}",
        ]
        parts = [cache / f"propagated_{split}", cache / f"fully_walked_{split}"]
        refined = [*on, "--threshold", cut, "--crf", "deeplab", "--out", cache / f"{row}_labels_{split}"]
        said = [
            chain.camplug("pseudo-labels", cache / f"fully_{split}", *walk),
            chain.camplug("average-seeds", *parts, *salient, *on, "--out", cache / f"{row}_{split}"),
            chain.camplug("pseudo-labels", cache / f"{row}_{split}", *refined),
        ]
        minutes[f"labels, {split}"] = sum(one["seconds"] for one in said) / 60
    found = json.loads((heads / "settings.json").read_text())["labels"]
    return {k: found[k] for k in ("background", "foreground")} | {"walk": cut}, minutes


def measured_row(chain: Chain, row: str, labels: str, args: argparse.Namespace) -> dict[str, Any]:
    """The whole chain; every stage's figures on val, and the minutes."""
    weights, epochs = args.weights, args.epochs
    if row in AVERAGED:
        cuts, minutes = average_labels(chain, row, weights, args.saliency if row == AVERAGED[1] else None)
    else:
        cuts, minutes = labels_of(chain, row, labels, weights)
    name = named(row, labels)
    out = chain.cache / f"{name}_deeplab"
    start = ["--model", "demo", "--checkpoint", weights, "--num-classes", 20]
    given = [*chain.on("part"), *start, *DEEPLAB, *CROPS, "--epochs", epochs, "--device", "cpu", "--out", out]
    trained = chain.camplug("train", "deeplab", chain.cache / f"{name}_labels_part", *given)
    found: dict[str, Any] = {"minutes": {**minutes, "DeepLab": trained["seconds"] / 60}, "images": trained["images"]}
    found["cuts"] = cuts
    for part in list(PARTS)[2:]:
        crf = ["--crf", "deeplab" if "crf" in part else "none", *(["--labels", "given"] if "given" in part else [])]
        given = [*chain.on("val"), "--weights", out / "deeplab.pt", *VIEWS_OF_VAL, *crf]
        chain.camplug("segment", *given, "--out", chain.cache / f"{name}_{part}_val")
    folders = {"seeds": f"{row}_val", "labels": f"{name}_labels_val", **{k: f"{name}_{k}_val" for k in list(PARTS)[2:]}}
    for part, folder in folders.items():
        fixed = ["--threshold", SEED_THRESHOLD.get(row, THRESHOLD)] if part == "seeds" else []
        report = chain.evaluate(chain.cache / folder, "val", *fixed)
        found[part] = scores(report)
        found[part]["iou"] = {c: 100 * report["per_class"][c]["iou"] for c in report["averaged_over"]}
    if labels == "otsu" and row not in AVERAGED:
        report = chain.evaluate(chain.cache / f"{name}_walked_val", "val", "--threshold", cuts["walk"])
        best = report["best_threshold_here"]
        at_best = chain.evaluate(chain.cache / f"{name}_walked_val", "val", "--threshold", best)
        found["walked"] = {"otsu": scores(report), "best": scores(at_best)}
    return found


def everything(args: argparse.Namespace) -> dict[str, Any]:
    chain = Chain(args.data, args.cache)
    ids = (args.data / "ImageSets" / "Segmentation" / "train_aug.txt").read_text().split()
    part = chain.keep_every(args.every, ids, "part")
    chosen = [(row, labels) for row in args.rows for labels in (["otsu"] if row in AVERAGED else args.labels)]
    rows = {
        named(row, labels): {"row": row, "labels_by": labels} | measured_row(chain, row, labels, args)
        for row, labels in chosen
    }
    return {
        **describe_run("torchvision", "timm", "lightning", "numpy"),
        "epochs": args.epochs,
        "every": args.every,
        "images": {"part": len(part), "val": len(LISTS[1].read_text().split())},
        "rows": rows,
        "commands": chain.commands,
    }


def report(data: dict[str, Any]) -> list[str]:
    """The tables in Markdown."""
    images, rows = data["images"], data["rows"]
    labels = {
        key: ROWS[found["row"]][0] + ("" if found["row"] in AVERAGED else f", {found['labels_by']}")
        for key, found in rows.items()
    }
    steps = images["part"] // 12 * data["epochs"]
    lines = [
        f"`{data['command']}`",
        "",
        f"Every {data['every']}rd image of train_aug ({images['part']}) with its image-level labels; mIoU-7 on val "
        f"({images['val']} images). DeepLab: ASPP of v2 on EfficientNet-Lite0 at output stride 16 from the "
        f"classifier's weights, {steps} steps of 12 crops of 256 pixels (photographs at 320), AdamW; three scales and "
        "mirror images on val. Seeds (at .25, averages at .5) and pseudo-labels of val are made with its image-level "
        "labels, DeepLab needs none; the last two columns give them to it, too, for a fair comparison.",
        "",
    ]
    body = [[labels[r], *(f"{found[p]['miou']:.1f}" for p in PARTS)] for r, found in rows.items()]
    lines += [
        *table(["chain, thresholds", *PARTS.values()], body),
        "",
        "Thresholds, none chosen by a mask but that of averages, on train:",
        "",
    ]
    body = [[labels[r], *(f"{found['cuts'][c]:.2f}" for c in CUTS)] for r, found in rows.items()]
    lines += [
        *table(["", *CUTS.values()], body),
        "",
        "Otsu's threshold of the walked maps, and the one best on val:",
        "",
    ]
    body = [
        [labels[r], *(f"{found['walked'][k]['miou']:.1f} at {found['walked'][k]['threshold']:.2f}" for k in KNOWN)]
        for r, found in rows.items()
        if "walked" in found
    ]
    lines += [*table(["", *KNOWN.values()], body), "", "IoU by class, DeepLab without CRF:", ""]
    classes = list(next(iter(rows.values()))["deeplab"]["iou"])
    body = [[labels[r], *(f"{found['deeplab']['iou'][c]:.1f}" for c in classes)] for r, found in rows.items()]
    lines += [*table(["", *classes], body), "", "Mean precision / recall of the six classes:", ""]
    body = [
        [labels[r], *(f"{found[p]['precision']:.1f} / {found[p]['recall']:.1f}" for p in PARTS)]
        for r, found in rows.items()
    ]
    lines += [*table(["", *PARTS.values()], body), "", "Minutes, one core each, others used the machine, too:", ""]
    stages = list(next(iter(rows.values()))["minutes"])
    body = [
        [labels[r], *(f"{found['minutes'][s]:.0f}" if s in found["minutes"] else "" for s in stages)]
        for r, found in rows.items()
    ]
    return [*lines, *table(["", *stages], body)]


def main(argv: list[str]) -> None:
    args = parsed(argv)
    if args.load is None and (args.data is None or args.weights is None):
        raise SystemExit("give --data and --weights, or --load a result.")
    if args.load is None and AVERAGED[1] in args.rows and args.saliency is None:
        raise SystemExit("the row averaged_saliency needs --saliency NETWORK.")
    tell(args, lambda: everything(args), report, "deeplab")


if __name__ == "__main__":
    main(sys.argv[1:])
