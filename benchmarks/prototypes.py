"""What FPR's pass for prototypes holds in memory over 10,000 images: the last table of docs/training.md.

    python benchmarks/prototypes.py --images 10000 --markdown docs/training.md

Random feature maps of the size that a network would put out go through the collector one image at a time, with 20
classes of which every image shows one or two. Counted are the bytes of what is kept after each image, and of its maps.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

import torch
from markdown_tables import renew, table

from camplug.wsss.fpr import Collector

MIB = 2**20
CASES = {
    "EfficientNet-Lite0, 1280 channels, 10x7": (1280, 7, 10),
    "ResNet-50, 2048 channels, stride 16": (2048, 24, 32),
}


def measured(images: int, channels: int, height: int, width: int, classes: int = 20) -> dict[str, float]:
    """The largest number of bytes kept and in flight, and the seconds of k-means."""
    generator = torch.Generator().manual_seed(0)
    collector = Collector(classes)
    kept = 0
    for i in range(images):
        features = torch.rand(1, channels, height, width, generator=generator)
        maps = torch.randn(1, classes, height, width, generator=generator)
        present = torch.zeros(1, classes)
        present[0, torch.randperm(classes, generator=generator)[: 1 + i % 2]] = 1
        collector.add(features, maps, present, [i])
        kept = max(kept, collector.bytes)
    start = time.perf_counter()
    collector.prototypes()
    flight = 4 * height * width * (channels + classes)
    return {"kept": kept / MIB, "flight": flight / MIB, "all": images * flight / MIB, "s": time.perf_counter() - start}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--markdown", type=Path, help="renew the table in this file")
    args = parser.parse_args(argv)
    body = []
    for name, (channels, height, width) in CASES.items():
        m = measured(args.images, channels, height, width)
        body.append([name, f"{m['kept']:.0f}", f"{m['flight']:.2f}", f"{m['all']:.0f}", f"{m['s']:.0f}"])
    head = ["", "kept, MiB", "one image's maps, MiB", "maps of all images, MiB", "k-means, s"]
    lines = [f"`{shlex.join(['python', 'benchmarks/prototypes.py', *argv])}`", "", *table(head, body)]
    print("\n".join(lines))
    if args.markdown is not None:
        renew(args.markdown, "prototypes", lines)


if __name__ == "__main__":
    main(sys.argv[1:])
