"""Faithfulness of many methods on real photographs: the table `faithfulness` of docs/trust.md.

    python benchmarks/faithfulness.py --data VOCdevkit/VOC2012 --weights voc_animals_lite0.pt --every 11 \
        --json docs/figures/faithfulness.json
    python benchmarks/faithfulness.py --load docs/figures/faithfulness.json --markdown docs/trust.md
    python benchmarks/faithfulness.py --data VOCdevkit/VOC2012 --weights voc_animals_lite0.pt --every 9 --cheap --miou \
        --json docs/figures/faithfulness_seeds.json --section faithfulness_seeds --markdown docs/trust.md

Of every image the first labelled class is explained; masks of that class are read for the pointing games alone. Pass
--markdown with the measuring command, too, to renew the table at once. With --miou, the same methods make seeds of all
labelled classes at the same size: thresholds are chosen on every --train-every image of train.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chain import LISTS
from markdown_tables import table
from PIL import Image
from results import add_result_options, describe_run, tell
from seeds import CLASSES
from seeds import measure as measure_seeds
from seeds import row_of as score_seeds
from torch import Tensor
from typing_extensions import override

import camplug
from camplug.explain.base import Explainer, Result
from camplug.explain.photographs import read_input
from camplug.explain.registry import get_method
from camplug.images.preprocess import Preprocess
from camplug.models.preprocess import find_preprocess
from camplug.trust import Settings, Trust
from camplug.trust.registry import find_metrics
from camplug.trust.similarity import rank_correlation
from camplug.wsss.data import VOC

METRICS = {
    "deletion": "deletion",
    "insertion": "insertion",
    "road": "ROAD",
    "confidence_drop": "average drop",
    "sparseness": "sparseness",
    "pointing_game": "pointing game",
    "energy_pointing_game": "energy in the object",
}
BEST = (
    "MultiView(FullyCAM(channel_norm=False), scales=(1, 1.5))",
    "LayerCAM('convs')",
    "FullyCAM(channel_norm=False)",
    "Propagate(FullyCAM(channel_norm=False))",
)
CHEAP = (
    "cam",
    "eigencam",
    "fully",
    "gradcam++",
    "inputxgradient",
    "kpcacam",
    "layercam",
    "refinecam",
    "saliency",
)
"""Methods of less than half a second whose maps differ: hirescam, gradcam and xgradcam are cam on this network."""


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="VOCdevkit/VOC2012")
    parser.add_argument("--weights", type=Path, help="state dict of the 20-class EfficientNet-Lite0")
    parser.add_argument("--model", help="a classifier.pt, in place of it")
    parser.add_argument("--called", help="what that classifier is, for the table")
    parser.add_argument("--every", type=int, default=11, help="take every n-th image of val")
    parser.add_argument("--long-side", type=int, default=224)
    parser.add_argument("--methods", nargs="+", help="names or expressions; default: all that need no attention")
    parser.add_argument("--cheap", action="store_true", help="the methods of less than half a second")
    parser.add_argument("--miou", action="store_true", help="score seeds of the same methods, too")
    parser.add_argument("--train-every", type=int, default=4, help="of the images that choose the seeds' thresholds")
    parser.add_argument("--val-every", type=int, default=1, help="of the images that the seeds are scored on")
    parser.add_argument("--cache", type=Path, default=Path("seeds_cache"), help="folder of the seeds' counts")
    parser.add_argument("--section", default="faithfulness", help="section of the page")
    add_result_options(parser)
    return parser.parse_args(argv)


class Timed(Explainer):
    """Another explainer, whose CPU seconds are counted."""

    def __init__(self, explainer: Explainer) -> None:
        super().__init__(explainer.model)
        self.explainer, self.seconds = explainer, 0.0

    @override
    def run(self, x: Tensor, classes: Any, size: Any = None, inputs: Any = None) -> Result:
        start = time.process_time()
        result = self.explainer.run(x, classes, size)
        self.seconds += time.process_time() - start
        return result


def everything(args: argparse.Namespace) -> dict[str, Any]:
    if args.model is None:
        model = camplug.load_model("timm:tf_efficientnet_lite0", checkpoint=args.weights, num_classes=20)
        preprocess = Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3, long_side=args.long_side)
    else:
        model = camplug.load_model(args.model)
        preprocess = find_preprocess(model).change(None, None, args.long_side)
    names = args.methods or [n for n in camplug.list_methods() if not get_method(n).needs_attention] + list(BEST)
    if args.cheap:
        names = [*CHEAP, *BEST[1:]]
    explainers = {name: Timed(camplug.create(name, model)) for name in names}
    seeds = make_seeds(args, model, names) if args.miou else {}
    trust = Trust(explainers, list(METRICS), Settings(steps=20))
    data = VOC(args.data, str(LISTS[1]))
    reader = camplug.GradCAM(model, preprocess=preprocess)
    chosen = range(0, len(data), args.every)
    for i in chosen:
        wanted = data.labels(i)[0]
        x = read_input(reader, data.photo(i))[1]
        mask = Image.fromarray((data.mask(i) == wanted + 1).astype(np.uint8))
        small = np.asarray(mask.resize((x.shape[2], x.shape[1]), Image.Resampling.NEAREST), bool)
        trust.add(x[None], wanted, masks=torch.from_numpy(small)[None])
        print(f"{data.ids[i]}: {sum(e.seconds for e in explainers.values()):.0f} s of maps so far", file=sys.stderr)
    found = trust.compute()
    return {
        **describe_run("torchvision", "timm", "numpy"),
        "images": len(chosen),
        "every": args.every,
        "long_side": args.long_side,
        "called": "EfficientNet-Lite0" if args.model is None else args.called or args.model,
        "seeds": {"train_every": args.train_every, "val_every": args.val_every} if seeds else None,
        "rows": {
            name: {
                "seconds": explainers[name].seconds / len(chosen),
                **({"seeds": seeds[name]} if seeds else {}),
                **{m: [one.mean, one.low, one.high] for m, one in row.items()},
            }
            for name, row in found.items()
        },
    }


def make_seeds(args: argparse.Namespace, model: torch.nn.Module, names: list[str]) -> dict[str, dict[str, Any]]:
    """Score the seeds of methods with the protocol of docs/seeds.md."""
    args = copy.copy(args)
    args.train, args.val = str(LISTS[0]), str(LISTS[1])
    texts = {name: name if "(" in name else get_method(name).__name__ for name in names}
    train, val = (measure_seeds(args, model, list(texts.values()), split) for split in ("train", "val"))
    indices = [0, *(VOC.classes.index(name) + 1 for name in CLASSES)]
    return {name: score_seeds(name, text, train[text], val[text], indices) for name, text in texts.items()}


def relate(rows: list[dict[str, Any]]) -> str:
    """Say how far the order of the methods by each metric is that of their seeds."""
    miou = [row["seeds"]["val"] for row in rows]
    signs = {m.name: -1 if m.better == "lower" else 1 for m in find_metrics(list(METRICS))}
    found = {title: spearman(miou, [signs[m] * row[m][0] for row in rows]) for m, title in METRICS.items()}
    return ", ".join(f"{title} {value:+.2f}" for title, value in found.items())


def ordinal(number: int) -> str:
    """Return "single", "2nd", "3rd" or "Nth"."""
    return {1: "single", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def spearman(a: list[float], b: list[float]) -> float:
    """Return the rank correlation of two lists."""
    return float(rank_correlation(torch.tensor([[a]]), torch.tensor([[b]])))


def report(data: dict[str, Any]) -> list[str]:
    """Return the table in Markdown, best insertion minus deletion first."""
    arrows = {m.name: "-" if m.better == "lower" else "+" for m in find_metrics(list(METRICS))}
    rows = sorted(data["rows"].items(), key=lambda item: item[1]["deletion"][0] - item[1]["insertion"][0])
    has_seeds = all("seeds" in row for _, row in rows)

    def write(values: list[float]) -> str:
        mean, low, high = values
        return f"{mean:.2f} ({low:.2f} to {high:.2f})"

    head = ["method", *(f"{title} ({arrows[m]})" for m, title in METRICS.items()), "CPU s / image"]
    body = [[f"`{name}`", *(write(row[m]) for m in METRICS), f"{row['seconds']:.2f}"] for name, row in rows]
    told = []
    if has_seeds:
        head.append("mIoU-7")
        body = [[*line, f"{row['seeds']['val']:.1f}"] for line, (_, row) in zip(body, rows, strict=True)]
        told = [
            f"mIoU-7: seeds on every {ordinal(data['seeds']['val_every'])} image of val, thresholds from every "
            f"{ordinal(data['seeds']['train_every'])} of train, as in [seeds](seeds.md) but at {data['long_side']} "
            f"pixels. Rank correlation over the {len(rows)} methods between mIoU-7 and each metric (+1: the better by "
            "the metric, the better the seeds): "
            f"{relate([row for _, row in rows])}.",
            "",
        ]
    return [
        f"`{data['command']}`",
        "",
        f"{data['images']} photographs of the VOC 2012 animals subset (every {ordinal(data['every'])} of val) at a "
        f"long side of {data['long_side']} pixels, {data.get('called', 'EfficientNet-Lite0')} fine-tuned on image "
        "labels; means with 95 % bootstrap intervals over the images, ordered by insertion minus deletion. (+): higher "
        "is better, (-): lower.",
        "",
        *told,
        *table(head, body),
    ]


def main(argv: list[str]) -> None:
    args = parsed(argv)
    if args.load is None and (args.data is None or (args.weights is None and args.model is None)):
        raise SystemExit("give --data and --weights or --model, or --load a result.")
    tell(args, lambda: everything(args), report, args.section)


if __name__ == "__main__":
    main(sys.argv[1:])
