"""DeepLab trained in other ways on the pseudo-labels of benchmarks/deeplab.py, and on masks: tables of docs/deeplab.md.

    python benchmarks/deeplab_training.py --data VOCdevkit/VOC2012 --weights voc_animals_lite0.pt \
        --saliency vit_s_focus.onnx --json docs/figures/deeplab_training.json
    python benchmarks/deeplab_training.py --load docs/figures/deeplab_training.json --markdown docs/deeplab.md
    python benchmarks/deeplab_training.py --data VOCdevkit/VOC2012 --vit vit_small_patch14_dinov2.pt \
        --weights voc_animals_lite0.pt --saliency vit_s_focus.onnx --rows vit vit_all vit_second vit_masks \
        --json docs/figures/deeplab_vit.json
    python benchmarks/deeplab_training.py --load docs/figures/deeplab_vit.json --markdown docs/deeplab.md

A table has rows of one body only.

The pseudo-labels must lie in the cache, where `benchmarks/deeplab.py --rows averaged averaged_saliency` leaves them.
The rows of all images make those of the other images in the same way, or, in the second round, with the network of the
row vit. Only the rows of masks read masks; the rows of all images log the mIoU on val after every epoch, and no setting
depends on it.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from chain import CLASSES, LISTS, Chain, scores
from deeplab import CROPS, DEEPLAB, VIEWS_OF_VAL, average_labels
from device_data import LITE0, READS
from markdown_tables import table
from results import add_result_options, describe_run, tell

import camplug
from camplug.wsss.classifier import build_classifier
from camplug.wsss.classifier.checkpoint import save_classifier
from camplug.wsss.data import VOC_CLASSES

BATCH = 12
PARTS = {"plain": "mIoU-7", "predicted": "labels predicted", "given": "labels given"}

VIT = "timm:vit_small_patch14_dinov2?dynamic_img_size=true"
VIT_OPTIONS = shlex.split(
    "--optimizer adamw --lr 0.0001 --weight-decay 0.01 --warmup 0.1 --head large-fov --dilations 1 "
    "--output-stride none --cut blocks.5 --batch 12 --crop 252 --long-side 322 --scales 0.75,1.5"
)
SECOND = "second_round"  # labels of the second round
SECOND_VIEWS = shlex.split("--long-side 322 --scales 0.75,1")
VIT_VIEWS = shlex.split("--long-side 322 --scales 0.75,1,1.5 --flip")


class Row(NamedTuple):
    """A training: what it is called, the labels it reads, passes over the images, options of the command, whether its
    body is the vision transformer, and the list of its images."""

    says: str
    labels: str
    epochs: int = 12
    options: tuple[Any, ...] = ()
    vit: bool = False
    split: str = "part"


ROWS = {
    "averaged": Row("averaged seeds", "averaged"),
    "refined": Row("averaged seeds, refinement loss, alpha 0.08", "averaged", 12, ("--refinement", 0.08)),
    "dropped": Row("averaged seeds, without large losses", "averaged", 12, ("--drop-large-losses", 0.1)),
    "saliency": Row("averaged with saliency", "averaged_saliency"),
    "saliency_dropped": Row(
        "averaged with saliency, without large losses", "averaged_saliency", 12, ("--drop-large-losses", 0.1)
    ),
    "longer": Row("averaged with saliency, twice as long", "averaged_saliency", 24),
    "masks": Row("masks", "masks", 28, split="train"),
    "vit": Row(
        "averaged with saliency, without large losses",
        "averaged_saliency",
        7,
        ("--drop-large-losses", 0.1),
        vit=True,
    ),
    "vit_all": Row(
        "averaged with saliency, all images",
        "averaged_saliency",
        5,
        ("--drop-large-losses", 0.1),
        vit=True,
        split="all",
    ),
    "vit_second": Row(
        "second round on all images",
        SECOND,
        5,
        ("--drop-large-losses", 0.1),
        vit=True,
        split="all",
    ),
    "vit_masks": Row("masks", "masks", 17, vit=True, split="train"),
}


LITE0_ROWS = [name for name, row in ROWS.items() if not row.vit]


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="VOCdevkit/VOC2012, with ImageSets/Segmentation/train_aug.txt")
    parser.add_argument("--weights", type=Path, help="state dict of the 20-class classifier")
    parser.add_argument("--vit", type=Path, help="weights of the rows vit...: those of benchmarks/vit_weights.py")
    parser.add_argument("--saliency", help="saliency network of the rows refined and vit_all")
    parser.add_argument("--rows", nargs="+", default=LITE0_ROWS, choices=list(ROWS))
    parser.add_argument("--dtype", default="bfloat16", help="as for camplug train deeplab")
    parser.add_argument("--cache", type=Path, default=Path("deeplab_cache"), help="that of benchmarks/deeplab.py")
    add_result_options(parser)
    return parser.parse_args(argv)


def measure_row(chain: Chain, name: str, row: Row, args: argparse.Namespace) -> dict[str, Any]:
    """Train DeepLab and return its figures on val."""
    out = chain.cache / f"{name}_{args.dtype}_deeplab"
    labels = chain.cache / f"{row.labels}_labels_{row.split}"
    if row.labels == "masks":
        labels = args.data / "SegmentationClass"
    if row.vit:
        given = ["--model", VIT, "--checkpoint", args.vit, *VIT_OPTIONS, *row.options]
    else:
        given = ["--model", "demo", "--checkpoint", args.weights, "--num-classes", 20, *DEEPLAB, *CROPS, *row.options]
    given += ["--saliency", args.saliency] if "--refinement" in row.options else []
    if row.split == "all":
        given += ["--validation", f"voc:{args.data}", "--validation-split", LISTS[1]]
    given += ["--epochs", row.epochs, "--dtype", args.dtype, "--device", "cpu", "--out", out]
    trained = chain.camplug("train", "deeplab", labels, *chain.on(row.split), *given)
    images = len(LISTS[0].read_text().split()) if row.split == "train" else trained["images"]
    found: dict[str, Any] = {"minutes": trained["seconds"] / 60, "images": images, "epochs": row.epochs}
    found["losses"] = read_losses(out)
    if row.split == "all":
        logged = [read_logged(out, f"validation_iou_{name}") for name in ("background", *CLASSES.split(","))]
        found["curve"] = [100 * sum(values) / len(values) for values in zip(*logged, strict=True)]
    classifier = write_classifier(args.weights, chain.cache / "classifier.pt")
    of_part = {"given": ["--labels", "given"], "predicted": ["--labels", "predicted", "--classifier", classifier]}
    for part in PARTS:
        options = of_part.get(part, [])
        drawn = chain.cache / f"{name}_{args.dtype}_{part}_val"
        weights = ["--weights", out / "deeplab.pt", *(VIT_VIEWS if row.vit else VIEWS_OF_VAL)]
        chain.camplug("segment", *chain.on("val"), *weights, *options, "--out", drawn)
        report = chain.evaluate(drawn, "val")
        found[part] = scores(report)
        found[part]["iou"] = {c: 100 * report["per_class"][c]["iou"] for c in report["averaged_over"]}
    return found


def write_classifier(weights: Path, file: Path) -> Path:
    """Write the classifier of a state dict, with its class names, if it is not there."""
    if not file.exists():
        made_with = {"model": LITE0, "num_classes": len(VOC_CLASSES)}
        model = camplug.load_model(LITE0, checkpoint=weights, num_classes=len(VOC_CLASSES))
        save_classifier(file, build_classifier(model, VOC_CLASSES, keep_head=True, preprocess=READS), made_with)
    return file


def read_losses(folder: Path) -> dict[str, float]:
    """Return the mean of the logged losses by quarter of the training: 1 to 4."""
    values = read_logged(folder, "loss")
    size = len(values) / 4
    quarters = [values[round(q * size) : round((q + 1) * size)] for q in range(4)]
    return {str(q + 1): sum(part) / len(part) for q, part in enumerate(quarters)}


def read_logged(folder: Path, name: str) -> list[float]:
    """Return the logged values of a name, in their order."""
    (file,) = folder.glob("checkpoints/losses/version_*/metrics.csv")
    with file.open() as opened:
        return [float(row[name]) for row in csv.DictReader(opened) if row[name]]


def list_images(chain: Chain, args: argparse.Namespace) -> None:
    """Write the lists part (every third image of train_aug), all, and rest (those not in part)."""
    ids = (args.data / "ImageSets/Segmentation/train_aug.txt").read_text().split()
    part = set(chain.keep_every(3, ids, "part"))
    chain.keep_every(1, ids, "all")
    chain.keep_every(1, [name for name in ids if name not in part], "rest")


def label_second_round(chain: Chain, args: argparse.Namespace) -> None:
    """Label the other images of train_aug, and val, with the network of the row vit and the images' labels."""
    network = chain.cache / f"vit_{args.dtype}_deeplab" / "deeplab.pt"
    if not network.exists():
        raise SystemExit("the row vit_second needs the network of the row vit; name that row before it.")
    for split in ("rest", "val"):
        given = [*chain.on(split), "--weights", network, *SECOND_VIEWS, "--labels", "given", "--crf", "deeplab"]
        chain.camplug("segment", *given, "--device", "cpu", "--out", chain.cache / f"{SECOND}_labels_{split}")


def collect_all_labels(chain: Chain, labels: str) -> None:
    """Copy the labels of all images into one folder; the images of part keep the pseudo-labels made of seeds."""
    folder = chain.cache / f"{labels}_labels_all"
    folder.mkdir(exist_ok=True)
    for kept in ("averaged_saliency_labels_part", f"{labels}_labels_rest"):
        for file in (chain.cache / kept).glob("*.png"):
            shutil.copy(file, folder)


def everything(args: argparse.Namespace) -> dict[str, Any]:
    chain = Chain(args.data, args.cache)
    kept = json.loads(args.json.read_text()) if args.json is not None and args.json.exists() else {}
    if kept and kept["dtype"] != args.dtype:
        raise SystemExit(f"{args.json} has rows of {kept['dtype']}; give --dtype {kept['dtype']}, or another file.")
    labels, rows = kept.get("labels", {}), kept.get("rows", {})
    chain.commands += kept.get("commands", [])
    for name in args.rows:
        if name in rows:
            continue
        kind = ROWS[name].labels
        if ROWS[name].split == "all":
            list_images(chain, args)
            if kind == SECOND:
                label_second_round(chain, args)
            else:
                average_labels(chain, kind, args.weights, args.saliency, ("rest",))
            collect_all_labels(chain, kind)
        if kind != "masks" and kind not in labels:
            labels[kind] = scores(chain.evaluate(chain.cache / f"{kind}_labels_val", "val"))
        rows[name] = measure_row(chain, name, ROWS[name], args)
    return {
        **describe_run("torchvision", "timm", "lightning", "numpy"),
        "dtype": args.dtype,
        "labels": labels,
        "rows": {name: rows[name] for name in ROWS if name in rows},
        "commands": chain.commands,
    }


def report(data: dict[str, Any]) -> list[str]:
    """Return the tables in Markdown."""
    rows, labels = data["rows"], data["labels"]
    lines = [
        f"`{data['command']}`",
        "",
        f"{describe_network(rows)}, trained in {data['dtype']}; mIoU-7 on val. In brackets the quotient to the network "
        "trained on masks. The loss is the mean over the first and the last quarter of the training. Minutes of two "
        "cores, which other processes used, too.",
        "",
    ]
    top = next((found for name, found in rows.items() if ROWS[name].labels == "masks"), None)
    parts = [part for part in PARTS if any(part in found for found in rows.values())]
    body = []
    for name, found in rows.items():
        row = ROWS[name]
        own = "" if row.labels == "masks" else f"{labels[row.labels]['miou']:.1f}"
        cells = [f"{found[part]['miou']:.1f}" if part in found else "" for part in parts]
        if top is not None and row.labels != "masks":
            cells[0] += f" ({found['plain']['miou'] / top['plain']['miou']:.2f})"
        steps = found["images"] // BATCH * found["epochs"]
        losses = f"{found['losses']['1']:.2f} -> {found['losses']['4']:.2f}"
        both = f"{found['plain']['precision']:.1f} / {found['plain']['recall']:.1f}"
        body.append([row.says, own, str(found["images"]), str(steps), *cells, both, losses, f"{found['minutes']:.0f}"])
    columns = ["labels", "their own mIoU-7 on val", "images", "steps", *(PARTS[part] for part in parts)]
    lines += table([*columns, "precision / recall", "loss", "minutes"], body)
    for name, found in rows.items():
        if "curve" in found:
            curve = ", ".join(f"{value:.1f}" for value in found["curve"])
            lines += [f"mIoU-7 on val after every epoch, one view, {ROWS[name].says}: {curve}.", ""]
    classes = list(next(iter(rows.values()))["plain"]["iou"])
    body = [[ROWS[name].says, *(f"{found['plain']['iou'][c]:.1f}" for c in classes)] for name, found in rows.items()]
    return [*lines, "", "IoU by class:", "", *table(["labels", *classes], body)]


def describe_network(rows: Iterable[str]) -> str:
    """Return what the table says of the network that all its rows train."""
    if not any(ROWS[name].vit for name in rows):
        return "The network, crops and views of the table above"
    return (
        "DeepLab on ViT-S/14 with a head of one 3x3 convolution, the first six of twelve blocks frozen; crops of 252 "
        "pixels (photographs at 322), AdamW; three scales and mirror images on val"
    )


def main(argv: list[str]) -> None:
    args = parsed(argv)
    rows = args.rows if args.load is None else list(json.loads(args.load.read_text())["rows"])
    if len({ROWS[row].vit for row in rows}) > 1:
        raise SystemExit("give rows of one body: all of them vit..., or none.")
    if args.load is None and args.data is None:
        raise SystemExit("give --data, or --load a result.")
    if args.load is None and args.weights is None:
        raise SystemExit("give --weights, the classifier that names classes, and in other rows the body.")
    if args.load is None and args.vit is None and any(ROWS[row].vit for row in args.rows):
        raise SystemExit("the rows vit... need --vit FILE.")
    if args.load is None and {"refined", "vit_all"} & {*args.rows} and args.saliency is None:
        raise SystemExit("the rows refined and vit_all need --saliency NETWORK.")
    mark = "deeplab vit" if ROWS[rows[0]].vit else "deeplab training"
    tell(args, lambda: everything(args), report, mark)


if __name__ == "__main__":
    main(sys.argv[1:])
