"""Quality and time of seeds on real photographs: the tables of docs/seeds.md.

    python benchmarks/seeds.py --data VOCdevkit/VOC2012 --weights voc_animals_lite0.pt --tables views --time 10 \
        --json docs/figures/seeds_views.json
    python benchmarks/seeds.py --load docs/figures/seeds_views.json --markdown docs/seeds.md

Thresholds are chosen on train and reported on val, mIoU over background and six animals. A run that was stopped goes on
where it was: each row's counts are kept in the folder seeds_cache, every 20 images.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from markdown_tables import renew, table
from measure import machine
from seed_rows import TABLES

import camplug
from camplug.explain import Wrapper, create, register_wrapper
from camplug.explain.base import Result
from camplug.explain.photographs import compute_maps_on_photo
from camplug.metrics import ThresholdSweep, miou
from camplug.models.preprocess import find_preprocess
from camplug.plug import Targets
from camplug.wsss.data import VOC
from camplug.wsss.recipe.image_checks import compute_average_precisions
from camplug.wsss.store.identity import hash_weights

CLASSES = ("cat", "cow", "dog", "horse", "person", "sheep")  # the other classes are too rare in this part of VOC
SAVE_EVERY = 20
LISTS = Path(__file__).parent.parent / "tests"


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="VOCdevkit/VOC2012")
    parser.add_argument("--model", default="demo", help="as for camplug explain, or a classifier.pt")
    parser.add_argument("--weights", type=Path, help="state dict of the model, with 20 classes")
    parser.add_argument("--long-side", type=int, default=320)
    parser.add_argument(
        "--train", default=str(LISTS / "voc12_animals_train.txt"), help="split, or file of ids, to choose thresholds on"
    )
    parser.add_argument("--train-every", type=int, default=4, help="take every n-th image of it")
    parser.add_argument("--val", default=str(LISTS / "voc12_animals_val.txt"), help="split, or file of ids, to report")
    parser.add_argument("--val-every", type=int, default=1, help="take every n-th image of it")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--cache", type=Path, default=Path("seeds_cache"))
    parser.add_argument("--time", type=int, default=0, metavar="N", help="time every row on N images of val")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--load", type=Path, help="measure nothing; print the results of this file")
    parser.add_argument("--markdown", type=Path, help="renew the tables in this file")
    return parser.parse_args(argv)


# ---- rows share what they have in common


class _Shared(ast.NodeTransformer):
    """Puts `Shared(...)` around every method and every `Dense(...)` of a line."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.id.lower() if isinstance(node.func, ast.Name) else ""
        if name == "dense" or name not in WRAPPERS:
            return _shared(node)
        node.args = [self.visit(a) for a in node.args]
        for keyword in node.keywords:
            keyword.value = self.visit(keyword.value)
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return _shared(node)


def _shared(node: ast.expr) -> ast.Call:
    return ast.Call(ast.Name("Shared"), [node, ast.Constant(ast.unparse(node))], [])


@register_wrapper("shared")
class Shared(Wrapper):
    """Runs an explainer on an image at most once, whichever row asks."""

    kept: ClassVar[dict[Any, tuple[torch.Tensor, torch.Tensor | None]]] = {}

    def __init__(self, explainer: camplug.Explainer, text: str) -> None:
        super().__init__(explainer)
        self.text = text

    def run(self, x: torch.Tensor, classes: Any, size: tuple[int, int] | None = None) -> Result:
        if callable(classes):  # a score is made anew for every call
            return self.explainer.run(x, classes, size)
        keys = [
            (self.text, self.explainer.normalize, hashlib.md5(one.numpy().tobytes()).digest(), tuple(row), size)
            for one, row in zip(x.contiguous(), classes, strict=True)
        ]
        new = [i for i, key in enumerate(keys) if key not in self.kept]
        if new:
            result = self.explainer.run(x[new], [list(classes[i]) for i in new], size)
            for j, i in enumerate(new):
                self.kept[keys[i]] = (result.maps[j], None if result.logits is None else result.logits[j])
        found = [self.kept[key] for key in keys]
        targets = Targets(tuple(tuple(row) for row in classes), None, True)
        return Result([maps for maps, _ in found], targets, torch.stack([f[1] for f in found]))


WRAPPERS = camplug.list_wrappers()


def made(text: str, model: torch.nn.Module, long_side: int) -> camplug.Explainer:
    """The explainer of a row, for photographs of this long side."""
    return create(text, model, preprocess=replace(find_preprocess(model), long_side=long_side))


def shared(text: str, model: torch.nn.Module, long_side: int) -> camplug.Explainer:
    """The explainer of a row, which takes from `Shared.kept` what another row has computed for the same image."""
    tree = _Shared().visit(ast.parse(text, mode="eval"))
    return made(ast.unparse(ast.fix_missing_locations(tree)), model, long_side)


# ---- measuring


class Measured:
    """One row on one split: a sweep, and how many images are in it; kept in the cache."""

    def __init__(self, text: str, split: str, cache: Path, key: str) -> None:
        name = hashlib.sha256(f"{text}|{split}|{key}".encode()).hexdigest()[:20]
        self.file = cache / f"{name}.npz"
        self.sweep, self.images = ThresholdSweep(21), 0
        if self.file.exists():
            with np.load(self.file, allow_pickle=False) as state:
                self.images = int(state["images_done"])
                self.sweep = ThresholdSweep.from_state({k: state[k] for k in state.files if k != "images_done"})

    def save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_suffix(".part.npz")
        np.savez_compressed(beside, images_done=self.images, **self.sweep.state())
        beside.replace(self.file)


def measure(args: argparse.Namespace, model: torch.nn.Module, rows: list[str], split: str) -> dict[str, ThresholdSweep]:
    """The sweeps of all rows on one split."""
    data = VOC(args.data, args.train if split == "train" else args.val)
    images = range(0, len(data), args.train_every if split == "train" else args.val_every)
    listed = hashlib.sha256(" ".join(data.ids).encode()).hexdigest()
    key = f"{args.long_side}|{camplug.__version__}|{listed}|{images.step}|{hash_weights(model)}"
    kept = {text: Measured(text, split, args.cache, key) for text in rows}
    explainers = {text: shared(text, model, args.long_side) for text in rows}
    for n, i in enumerate(images):
        waiting = [text for text in rows if kept[text].images == n]
        if not waiting:
            continue
        photo, truth, classes = data.photo(i), data.mask(i), data.labels(i)
        for text in waiting:
            maps, _ = compute_maps_on_photo(explainers[text], photo, list(classes))
            kept[text].sweep.add(maps.numpy(), classes, truth)
            kept[text].images += 1
        Shared.kept.clear()
        if (n + 1) % SAVE_EVERY == 0 or n + 1 == len(images):
            for text in waiting:
                kept[text].save()
            print(f"{split}: {n + 1} of {len(images)} images, {len(waiting)} rows", file=sys.stderr, flush=True)
    return {text: one.sweep for text, one in kept.items()}


def timed(args: argparse.Namespace, model: torch.nn.Module, rows: list[str]) -> dict[str, float]:
    """Seconds of CPU time per image of each row, the median over the images; rows take turns on each image."""
    data = VOC(args.data, args.val)
    images = np.linspace(0, len(data) - 1, args.time + 1).astype(int)
    explainers = {text: made(text, model, args.long_side) for text in rows}
    seconds: dict[str, list[float]] = {text: [] for text in rows}
    for n, i in enumerate(images):
        photo, classes = data.photo(int(i)), list(data.labels(int(i)))
        for text in rows[n % len(rows) :] + rows[: n % len(rows)]:  # the first one pays for a new size
            start = time.process_time()
            compute_maps_on_photo(explainers[text], photo, classes)
            if n:  # the first image warms up
                seconds[text].append(time.process_time() - start)
    return {text: float(np.median(values)) for text, values in seconds.items()}


def measure_precision(args: argparse.Namespace, model: torch.nn.Module) -> float:
    """Mean average precision of the classifier over the six animals, on the images of val."""
    data = VOC(args.data, args.val)
    images = range(0, len(data), args.val_every)
    preprocess = replace(find_preprocess(model), long_side=args.long_side)
    with torch.inference_mode():
        logits = [model(preprocess(data.photo(i))[0][None])[0].numpy() for i in images]
    found = compute_average_precisions(logits, [data.labels(i) for i in images], data.classes)
    return float(np.mean([found[name] for name in CLASSES]))


def row_of(label: str, text: str, train: ThresholdSweep, val: ThresholdSweep, indices: list[int]) -> dict[str, Any]:
    """What a table says of one row."""
    threshold, on_train = train.best("present", indices)
    at = int(np.abs(val.thresholds - threshold).argmin())
    groups = {
        str(g): 100 * float(miou(val.matrices_of(g)[at], "present", indices)) for g in sorted(val.groups) if g > 0
    }
    return {
        "label": label,
        "explainer": text,
        "threshold": threshold,
        "train": 100 * on_train,
        "val": 100 * float(val.scores("present", indices)[at]),
        "val_best": 100 * val.best("present", indices)[1],
        "groups": groups,
    }


def everything(args: argparse.Namespace, command: str) -> dict[str, Any]:
    """All tables, as they are written to JSON."""
    if args.threads:
        torch.set_num_threads(args.threads)
    model = camplug.load_model(args.model, checkpoint=args.weights, num_classes=20)
    rows = list(dict.fromkeys(text for table in args.tables for _, text in TABLES[table]))
    seconds = timed(args, model, rows) if args.time else {}
    sweeps = {split: measure(args, model, rows, split) for split in ("train", "val")}
    indices = [0, *(VOC.classes.index(name) + 1 for name in CLASSES)]
    tables = {
        name: [
            row_of(label, text, sweeps["train"][text], sweeps["val"][text], indices) | {"seconds": seconds.get(text)}
            for label, text in TABLES[name]
        ]
        for name in args.tables
    }
    images = {split: sum(next(iter(sweeps[split].values())).images.values()) for split in sweeps}
    return {
        "command": command,
        "machine": machine(torch.device("cpu"), ["camplug", "torch", "torchvision", "timm", "numpy"]),
        "model": args.model,
        "long_side": args.long_side,
        "images": images,
        "timed_on": args.time,
        "clock": "CPU time",
        "average_precision": measure_precision(args, model) if {*args.tables} & {"vit", "lite0"} else None,
        "tables": tables,
    }


# ---- reporting


def report(data: dict[str, Any], name: str) -> list[str]:
    """The lines of one table."""
    m = data["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in m["versions"].items())
    clock = data.get("clock", "Time")  # older results are of wall time
    timing = f"{clock}: median over {data['timed_on']} of them, " if data["timed_on"] else ""
    precision = data.get("average_precision")
    classifier = "" if precision is None else f" The classifier's mean average precision on them is {precision:.3f}."
    lines = [
        f"`{data['command']}`",
        "",
        f"Long side {data['long_side']} px; {data['images']['train']} images of train chose the thresholds, "
        f"{data['images']['val']} of val are reported.{classifier} {timing}{m['cpu']}, {m['torch threads']} threads. "
        f"{versions}.",
        "",
    ]
    body = [
        [
            row["label"],
            f"{row['val']:.1f}",
            f"{row['threshold']:.2f}",
            f"{row['train']:.1f}",
            *(f"{row['groups'].get(g, float('nan')):.1f}" for g in ("1", "2", "3")),
            "-" if row["seconds"] is None else f"{row['seconds']:.2f}",
            f"`{row['explainer']}`",
        ]
        for row in data["tables"][name]
    ]
    head = ["", "mIoU-7 val", "threshold", "train", "1 class", "2", "3+", "s / image", "explainer"]
    return lines + table(head, body)


def main(argv: list[str]) -> None:
    args = parsed(argv)
    command = shlex.join(["python", "benchmarks/seeds.py", *argv])
    data = json.loads(args.load.read_text(encoding="utf-8")) if args.load else everything(args, command)
    if args.json:
        args.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    for name in data["tables"]:
        lines = report(data, name)
        if args.markdown:
            renew(args.markdown, f"seeds_{name}", lines)
        else:
            print("\n".join([f"## {name}", "", *lines]))


if __name__ == "__main__":
    main(sys.argv[1:])
