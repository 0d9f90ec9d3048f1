"""Images of a recipe's report through all stages, as one picture for the docs.

camplug wsss demo --no-open
python benchmarks/demo_picture.py runs/demo --rows 4 --out docs/figures/demo.png
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of the run, with its report.json")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    images = json.loads((args.run / "report.json").read_text())["pictures"][: args.rows]
    columns = len(images[0]["panels"])
    figure = Figure(figsize=(1.8 * columns, 1.45 * len(images)), layout="compressed")
    for axes, image in zip(figure.subplots(len(images), columns, squeeze=False), images, strict=True):
        for ax, panel in zip(axes, image["panels"], strict=True):
            ax.imshow(Image.open(args.run / panel["file"]))
            ax.set_axis_off()
            if image is images[0]:
                ax.set_title(panel["title"], fontsize=9)
    figure.savefig(args.out, dpi=100)


if __name__ == "__main__":
    main(sys.argv[1:])
