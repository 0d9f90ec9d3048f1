"""A folder of 200 photographs as somebody new has it: files, a table of labels, and what is needed to score.

    python benchmarks/few_photographs.py --data VOCdevkit/VOC2012 --out own

OUT/photos and OUT/labels.csv are every 15th image of train_aug with cat, cow, dog, horse, person or sheep, and the
names of these classes. OUT/corrected holds the masks of those of train, in the six classes' numbers, as if drawn by
hand, and OUT/val the photographs of the VOC 2012 animals subset's val list. docs/own_data.md has the commands that
follow.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
from chain import CLASSES, LISTS
from PIL import Image

from camplug.wsss.data import open_data

EVERY, COUNT = 15, 200
IGNORED = 255


def copy_photographs(data: Path, out: Path) -> list[str]:
    """Copy the photographs with a table of their labels; return their names."""
    images, wanted = open_data(f"voc:{data}", "train_aug"), CLASSES.split(",")
    (out / "photos").mkdir(parents=True, exist_ok=True)
    found: dict[str, list[str]] = {}
    for i in range(0, len(images), EVERY):
        names = [images.classes[c] for c in images.labels(i) if images.classes[c] in wanted]
        if names and len(found) < COUNT:
            found[images.ids[i]] = names
    for name in found:
        shutil.copy(data / "JPEGImages" / f"{name}.jpg", out / "photos")
    lines = [f"{name}.jpg,{';'.join(labels)}" for name, labels in found.items()]
    (out / "labels.csv").write_text("\n".join(["image,labels", *lines]) + "\n")
    return list(found)


def write_masks(data: Path, out: Path, names: list[str]) -> int:
    """Write the masks of photographs of train in the numbers of the six classes; return their number."""
    images = open_data(f"voc:{data}", "train")
    values = np.zeros(256, np.uint8)
    values[IGNORED] = IGNORED
    for number, name in enumerate(CLASSES.split(","), 1):
        values[images.classes.index(name) + 1] = number
    (out / "corrected").mkdir(parents=True, exist_ok=True)
    kept = sorted({*names}.intersection(images.ids))
    for name in kept:
        Image.fromarray(values[images.mask(images.ids.index(name))]).save(out / "corrected" / f"{name}.png")
    return len(kept)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="VOCdevkit/VOC2012, with a list train_aug")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    args = parser.parse_args(argv)
    names = copy_photographs(args.data, args.out)
    masks = write_masks(args.data, args.out, names)
    (args.out / "val").mkdir(exist_ok=True)
    for name in LISTS[1].read_text().split():
        shutil.copy(args.data / "JPEGImages" / f"{name}.jpg", args.out / "val")
    print(f"{len(names)} photographs with labels, {masks} with masks")


if __name__ == "__main__":
    main(sys.argv[1:])
