"""Ten images of val through the stages, as one picture without the photographs, which may not be passed on.

    python benchmarks/pseudo_label_pictures.py --load docs/figures/pseudo_labels.json --row fully \
        --data VOCdevkit/VOC2012 --weights voc_animals_lite0.pt --out docs/figures/pseudo_labels.png

Takes what `benchmarks/pseudo_labels.py` left in its cache.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pseudo_labels import LISTS

from camplug.images.save import save_picture
from camplug.models import load_model
from camplug.show import colorize
from camplug.wsss.data import VOC, make_voc_palette
from camplug.wsss.data.masks import read_mask
from camplug.wsss.irn import label_with_background
from camplug.wsss.irn.checkpoint import load_irn
from camplug.wsss.pseudo.make import renumber_to_data
from camplug.wsss.seeds import SeedFolder

TILE = 210, 150
COLUMNS = ("seeds (strongest class)", "boundaries of IRN", "after IRN's walk", "and the dense CRF", "truth")


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--load", type=Path, required=True, help="the JSON file of benchmarks/pseudo_labels.py")
    parser.add_argument("--row", default="fully")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("pseudo_labels_cache"))
    parser.add_argument("--every", type=int, default=22)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(argv)


def tile(pixels: np.ndarray) -> Image.Image:
    """A picture fitted into a tile."""
    picture = Image.fromarray(pixels)
    scale = min(TILE[0] / picture.width, TILE[1] / picture.height)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)


def draw_tiles(titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]], out: Path) -> None:
    """Rows of pictures below their titles, as one picture."""
    font, gap, head = ImageFont.load_default(size=14), 6, 24
    size = (len(titles) * (TILE[0] + gap) - gap, len(rows) * (TILE[1] + gap) + head)
    canvas = Image.new("RGB", size, "white")
    for k, title in enumerate(titles):
        ImageDraw.Draw(canvas).text((k * (TILE[0] + gap), 2), title, "black", font)
    for n, row in enumerate(rows):
        for k, pixels in enumerate(row):
            canvas.paste(tile(pixels), (k * (TILE[0] + gap), head + n * (TILE[1] + gap)))
    save_picture(canvas, str(out))


def main(argv: list[str]) -> None:
    args = parsed(argv)
    columns = json.loads(args.load.read_text())["rows"][args.row]["columns"]
    data = VOC(args.data, LISTS[1])
    seeds, walked = (SeedFolder(args.cache / f"{args.row}{of}_val") for of in ("", "_irn"))
    refined = args.cache / f"{args.row}_irn_crf_{columns['irn_crf']['threshold']:g}_val"
    model = load_model("timm:tf_efficientnet_lite0", checkpoint=args.weights, num_classes=20).eval()
    irn = load_irn(args.cache / f"{args.row}_irn" / "irn.pt", model)
    palette, rows = make_voc_palette(), []
    for n in range(args.count):
        i = n * args.every
        name, photo, truth = data.ids[i], np.asarray(data.photo(i)), data.mask(i)
        seed, after = seeds.load(name), walked.load(name)
        labels = renumber_to_data(
            label_with_background(after.to_full_size(), columns["irn"]["threshold"]), after.classes
        )
        boundary = irn.boundaries(photo).numpy()
        rows.append(
            (
                colorize(seed.to_full_size().max(0)),
                np.repeat((255 * boundary).astype(np.uint8)[..., None], 3, axis=2),
                palette[labels],
                palette[read_mask(refined / f"{name}.png", 20)],
                palette[truth],
            )
        )
    draw_tiles(COLUMNS, rows, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
