"""Instances of a photograph of a cat and of images of val, as one picture for the docs.

    python benchmarks/instance_pictures.py --data VOCdevkit/VOC2012 --weights voc_animals_lite0.pt \
        --out docs/figures/instances.png

IRN is trained on every second image of train, from propagated Fully-CAM seeds and without masks. Seeds, network and
instances are kept in --cache. Photographs of VOC are not shown, as they may not be passed on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chain import LISTS, Chain
from numpy.typing import NDArray
from pseudo_label_pictures import draw_tiles

import camplug
from camplug.images.photo import read_photo
from camplug.models import load_model
from camplug.show import colorize
from camplug.wsss.data import VOC, make_voc_palette
from camplug.wsss.irn.checkpoint import load_irn
from camplug.wsss.irn.instances import Instance
from camplug.wsss.pseudo import InstanceFolder, IRNWalk
from camplug.wsss.seeds import SeedFolder

EXPLAINER = "Propagate(FullyCAM(channel_norm=False))"
TRAINING = shlex.split("--optimizer adamw --lr 0.003 --epochs 4 --batch 8 --crop 320 --scales 0.5,1.5 --width 64")
WALK = {"power": 1.5, "clear": 0.0}
THRESHOLD = 0.3  # that of Fully-CAM's walked maps in the table of docs/pseudo_labels.md, rounded
COLUMNS = ("seeds (strongest class)", "instances", "truth (classes)")


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="VOCdevkit/VOC2012")
    parser.add_argument("--weights", type=Path, required=True, help="state dict of the 20-class classifier")
    parser.add_argument("--cache", type=Path, default=Path("pseudo_labels_cache"))
    parser.add_argument("--every", type=int, default=22)
    parser.add_argument("--count", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(argv)


def run_commands(args: argparse.Namespace) -> None:
    """Make the seeds, the IRN, and the instances of the images that are shown."""
    chain = Chain(args.data, args.cache)
    train, val = (path.read_text().split() for path in LISTS)
    chain.keep_every(2, train, "half")
    chain.keep_every(args.every, val[: args.every * args.count], "shown")
    model = ["--checkpoint", args.weights, "--num-classes", 20]
    folders = {name: args.cache / f"propagated_{name}" for name in ("train", "val")}
    for folder, split in zip(folders.values(), ("half", "shown"), strict=True):
        given = [*chain.on(split), *model, "--long-side", 320, "--explainer", EXPLAINER, "--out", folder]
        chain.camplug("seeds", *given)
    out = args.cache / "instances_irn"
    thresholds = ["--foreground", "otsu", "--background", "otsu", "--crf", "none"]
    given = [*chain.on("half"), *model, *thresholds, *TRAINING, "--device", "cpu", "--out", out]
    chain.camplug("train", "irn", folders["train"], *given)
    walk = [word for name, value in WALK.items() for word in (f"--{name}", value)]
    weights = ["--weights", out / "irn.pt", "--threshold", THRESHOLD, "--device", "cpu"]
    chain.camplug("instances", folders["val"], *chain.on("shown"), *weights, *walk, "--out", args.cache / "instances")


def paint(instances: list[Instance], size: tuple[int, int], photo: NDArray[np.uint8] | None = None) -> Any:
    """Paint each instance in a colour of its own, over a photograph if there is one."""
    colours = make_voc_palette()[1:]
    picture = np.zeros((*size, 3), np.uint8) if photo is None else photo.copy()
    for k, one in enumerate(instances):
        share = 1.0 if photo is None else 0.5
        picture[one.mask] = (share * colours[k % 20] + (1 - share) * picture[one.mask]).astype(np.uint8)
    return picture


def main(argv: list[str]) -> None:
    args = parsed(argv)
    torch.set_num_threads(1)
    run_commands(args)
    palette, rows = make_voc_palette(), []
    model = load_model("demo", checkpoint=args.weights, num_classes=20).eval()
    walk = IRNWalk(load_irn(args.cache / "instances_irn" / "irn.pt", model), THRESHOLD, **WALK)
    photo = read_photo(camplug.sample_photo())
    maps = camplug.create(EXPLAINER, model).explain(photo, VOC.classes.index("cat")).maps.numpy()
    cat, size = np.asarray(photo), (photo.height, photo.width)
    rows.append((colorize(maps.max(0)), paint(walk.find_instances(cat, maps), size, cat), np.full_like(cat, 255)))
    data, seeds = VOC(args.data, LISTS[1]), SeedFolder(args.cache / "propagated_val")
    for i in range(0, args.every * args.count, args.every):
        found = InstanceFolder(args.cache / "instances").load(data.ids[i])
        maps = seeds.load(data.ids[i]).to_full_size()
        rows.append((colorize(maps.max(0)), paint(list(found.instances), found.size), palette[data.mask(i)]))
    draw_tiles(COLUMNS, rows, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
