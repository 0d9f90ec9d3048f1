"""The papers' trainings on photographs, many at once: every row goes on from the same trained classifier.

    python benchmarks/papers.py --data VOCdevkit/VOC2012 --weights weights --device cuda --jobs 6 --json papers.json
    python benchmarks/papers.py --load papers.json --markdown docs/gpu.md

Each seed trains an ordinary classifier from ImageNet weights, then every row goes on with it for as many epochs again;
with `--start` every row goes on with that trained classifier instead:

    python benchmarks/papers.py --data VOCdevkit/VOC2012 --start voc_animals_lite0.pt --epochs 1 --seeds 0 \
        --lr 1e-4 --rows ordinary atm_strong --json docs/figures/papers.json
    python benchmarks/papers.py --load docs/figures/papers.json --markdown docs/training.md

Thresholds are chosen on every third image of train, val is reported. Each row is a process of its own, and stands in
the file as soon as it is done; what is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from cached_rows import STRONG
from device_data import LITE0, READS, SCENES, Part, beginning, facts, opened
from markdown_tables import renew, table
from results import command_line

import camplug
from camplug.explain import create
from camplug.explain.photographs import compute_maps_on_photo
from camplug.metrics import ThresholdSweep, false_discovery_rate, miou, precision, recall
from camplug.wsss.atm import ATM
from camplug.wsss.classifier import Method, get_preset, train_classifier
from camplug.wsss.classifier.checkpoint import load_classifier
from camplug.wsss.fpr import FPR
from camplug.wsss.rpnet import RPNet
from camplug.wsss.train.options import TrainDtype

CLASSES = ("cat", "cow", "dog", "horse", "person", "sheep")
EXPLAINERS = {"cam": "CAM", "fully": "FullyCAM(channel_norm=False)"}
OFF: dict[str, Any] = {"enhance": False, "decrease": False}
ATROUS: dict[str, Any] = {"channel_attention": False, "spatial_attention": False, "context": False}
START = "start"
# that rows depend on
SETTINGS = ("device", "data", "weights", "start", "epochs", "batch", "lr", "crop", "long_side", "count", "dtype")
ROWS: dict[str, tuple[str, Method]] = {
    START: ("the classifier that all go on with", Method()),
    "ordinary": ("ordinary", Method()),
    "atm": ("ATM", ATM(fum=False)),
    "atm_strong": ("ATM, weights 2, background 0.1", ATM(fum=False, **STRONG)),
    "atm_present": ("ATM, losses averaged over present classes", ATM(fum=False, average="present")),
    "fum": ("FUM", ATM(**OFF)),
    "fum_last": ("FUM, relation of the last map", ATM(**OFF, level="last")),
    "atrous": ("FUM's atrous convolutions alone", ATM(**OFF, **ATROUS)),
    "atm_fum": ("ATM + FUM", ATM()),
    "rpnet_neck": ("RPNet's neck alone", RPNet(weight=0.0, each_first=False)),
    "rpnet1": ("RPNet, 1 image, ramp 0.5", RPNet(images=1, ramp=0.5)),
    "rpnet2": ("RPNet, 2 images, ramp 0.5", RPNet(images=2, each_first=False, ramp=0.5)),
    "rpnet_scales": (
        "RPNet, without prototypes, ramp 0.5",
        RPNet(images=2, each_first=False, ramp=0.5, prototypes=False),
    ),
    "rpnet2_16": (
        "RPNet, 2 images, ramp 0.5, stages last and 16, regions of classes",
        RPNet(images=2, each_first=False, ramp=0.5, stages="last,16", regions="classes"),
    ),
    "fpr_rc": ("FPR, L_RC", FPR(pixel_rectification=0.0)),
    "fpr_pr": (
        "FPR, L_PR at 0.002, no super-classes",
        FPR(region_contrast=0.0, pixel_rectification=0.002, groups="none"),
    ),
}


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", help="VOCdevkit/VOC2012 with a list train_aug, or scenes:COUNT")
    parser.add_argument("--weights", type=Path, help="folder with imagenet_lite0.pt; a small network without it")
    parser.add_argument("--start", type=Path, help="state dict of a trained 20-class EfficientNet-Lite0 to go on with")
    parser.add_argument("--rows", nargs="+", default=list(ROWS)[1:], choices=list(ROWS)[1:])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-4, help="learning rate of the layers before the head")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--long-side", type=int, default=320, help="of the photographs that maps are made of")
    parser.add_argument("--count", type=int, help="images of each split; all by default")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=get_args(TrainDtype), help="of the trainings")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no row after this time")
    parser.add_argument("--cache", type=Path, help="folder of the trained networks; by default one that is deleted")
    parser.add_argument("--only", nargs=2, metavar=("ROW", "SEED"), help="train and measure this one, and print it")
    parser.add_argument("--json", type=Path, help="write every row here; what is there is not trained again")
    parser.add_argument("--load", type=Path, help="measure nothing; print the results of this file")
    parser.add_argument("--markdown", type=Path, help="renew the table between <!-- papers --> marks in this file")
    return parser.parse_args(argv)


# ---- one row


def row_of(args: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Train one row, and score its maps."""
    if args.device == "cpu":
        torch.set_num_threads(1)
    data = Part(opened(args.data, "train_aug"), args.count, keep=True)
    learning, span = get_preset("modern")
    learning = replace(learning, schedule=replace(learning.schedule, lr=args.lr))
    sides = (args.crop, args.crop * 3 // 2)
    span = replace(span, epochs=args.epochs, batch=args.batch, crop=args.crop, sides=sides, seed=seed)
    torch.manual_seed(seed)
    model = find_start(args, name, seed).to(args.device)
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    began = clock()
    done = train_classifier(
        model,
        data,
        args.cache / f"{name}_{seed}",
        method=ROWS[name][1],
        learning=learning,
        span=span,
        preprocess=READS,
        workers=args.workers,
        dtype=args.dtype,
    )
    trained = clock() - began
    found = {key: scored(done.network, text, args) for key, text in EXPLAINERS.items()}
    return {"row": name, "seed": seed, "seconds": trained, "losses": done.losses, **found}


def find_start(args: argparse.Namespace, name: str, seed: int) -> torch.nn.Module:
    """Return the network that a row begins with."""
    if args.start is not None:
        return camplug.load_model(LITE0, checkpoint=args.start, num_classes=20)
    beginner = beginning(args.weights, "cpu")
    return beginner if name == START else load_classifier(args.cache / f"{START}_{seed}" / "classifier.pt", beginner)


def scored(network: torch.nn.Module, line: str, args: argparse.Namespace) -> dict[str, Any]:
    """mIoU, and mean precision, recall and false discovery rate of the objects, on val, at the threshold of train."""
    explainer = create(line, network, preprocess=replace(READS, long_side=args.long_side))
    sweeps = {}
    for split, step in (("train", 3), ("val", 1)):
        data = Part(opened(args.data, split), args.count, step)
        sweeps[split] = ThresholdSweep(len(data.classes) + 1)
        for i in range(len(data)):
            classes = data.labels(i)
            maps, _ = compute_maps_on_photo(explainer, data.photo(i), list(classes))
            sweeps[split].add(maps.numpy(), classes, data.mask(i))
    names = data.classes
    indices = [0, *(names.index(c) + 1 for c in (names if args.data.startswith(SCENES) else CLASSES))]
    threshold, on_train = sweeps["train"].best("present", indices)
    matrix = sweeps["val"].at(threshold)
    means = {
        what: 100 * float(np.nanmean(of(matrix)[indices[1:]]))
        for what, of in (("precision", precision), ("recall", recall), ("fdr", false_discovery_rate))
    }
    val = 100 * float(miou(matrix, "present", indices))
    return {"miou": val, **means, "train": 100 * on_train, "threshold": threshold}


# ---- all rows


def everything(args: argparse.Namespace) -> dict[str, Any]:
    """Train what the file does not hold, several rows at once."""
    began = time.perf_counter()
    settings = {name: str(getattr(args, name)) for name in SETTINGS}
    kept = json.loads(args.json.read_text()) if args.json and args.json.exists() else {"rows": [], "settings": settings}
    if other := [name for name in SETTINGS if kept["settings"].get(name) != settings[name]]:
        raise SystemExit(
            f"{args.json} has another {other[0]} ({kept['settings'].get(other[0])}, not {settings[other[0]]}); "
            "give another file, or delete it."
        )
    data = {"command": command_line(), "machine": facts(args.device), "epochs": args.epochs, **kept}
    there = {(row["row"], row["seed"]) for row in data["rows"]}
    left_out: list[str] = []

    def one(name: str, seed: int) -> dict[str, Any] | None:
        if (name, seed) in there and (name != START or (args.cache / f"{name}_{seed}").exists()):
            return None
        if time.perf_counter() - began > args.seconds:
            left_out.append(f"{name} {seed}")
            return None
        done = subprocess.run(
            [sys.executable, __file__, *given(args), "--only", name, str(seed)], stdout=-1, check=False
        )
        if done.returncode:
            return {"row": name, "seed": seed, "error": f"exit code {done.returncode}"}
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]

    with ThreadPoolExecutor(args.jobs) as pool:
        for names in ([START] if args.start is None else [], args.rows):
            running = [pool.submit(one, name, seed) for seed in args.seeds for name in names]
            for row in (future.result() for future in as_completed(running)):
                if row is not None:
                    data["rows"] = [r for r in data["rows"] if (r["row"], r["seed"]) != (row["row"], row["seed"])] + [
                        row
                    ]
                    print(row, file=sys.stderr, flush=True)
                    if args.json:
                        args.json.write_text(json.dumps(data, indent=1) + "\n")
    data |= {"left out": left_out, "seconds": time.perf_counter() - began}
    if args.json:
        args.json.write_text(json.dumps(data, indent=1) + "\n")
    return data


def given(args: argparse.Namespace) -> Iterator[str]:
    """The options of a row's own process."""
    for name in (*SETTINGS, "workers", "cache"):
        if getattr(args, name) is not None:
            yield from (f"--{name.replace('_', '-')}", str(getattr(args, name)))


def report(data: dict[str, Any]) -> list[str]:
    """The table in Markdown."""
    m = data["machine"]
    rows = [row for row in data["rows"] if "error" not in row]
    start = "the classifier that all go on with and for each row"
    if data["settings"].get("start", "None") != "None":
        start = f"each row, which goes on with {Path(data['settings']['start']).name}"
    lines = [
        f"`{data['command']}`",
        "",
        f"{m['gpu'] or m['cpu']}, torch {m['versions']['torch']}; epochs for {start}: {data['epochs']}. The "
        f"learning rate is {float(data['settings'].get('lr', 5e-4)):g}. CAM's seeds on "
        "val, mean ± standard deviation over seeds, and in brackets the mean difference from the ordinary training of "
        'the same seed ± its standard deviation. "On train" is mIoU-7 at the best threshold there, which val is '
        "reported at; then Fully-CAM without channel norm on val, and seconds of training (of a CPU: CPU time).",
        "",
    ]
    usual = {row["seed"]: row for row in rows if row["row"] == "ordinary"}
    body = []
    for name in dict.fromkeys(row["row"] for row in sorted(rows, key=lambda r: list(ROWS).index(r["row"]))):
        mine = [row for row in rows if row["row"] == name]
        cells = [cell(mine, usual, "cam", what) for what in ("miou", "precision", "recall", "fdr", "train")]
        cells += [cell(mine, usual, "fully", "miou"), f"{np.mean([row['seconds'] for row in mine]):.0f}"]
        body.append([ROWS[name][0], str(len(mine)), *cells])
    head = ["", "seeds", "mIoU-7", "precision", "recall", "FDR", "on train", "Fully-CAM", "s"]
    lines += table(head, body)
    if data.get("left out"):
        lines += [f"Left out, because the time was over: {', '.join(data['left out'])}.", ""]
    return lines


def cell(mine: list[dict[str, Any]], usual: dict[int, dict[str, Any]], key: str, what: str) -> str:
    values = [row[key][what] for row in mine]
    text = f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")
    pairs = [row[key][what] - usual[row["seed"]][key][what] for row in mine if row["seed"] in usual]
    if mine[0]["row"] in (START, "ordinary") or not pairs:
        return text
    spread = f" ± {np.std(pairs, ddof=1):.1f}" if len(pairs) > 1 else ""
    return f"{text} ({np.mean(pairs):+.1f}{spread})"


def main(argv: list[str]) -> None:
    args = parsed(argv)
    if args.only:
        print(json.dumps(row_of(args, args.only[0], int(args.only[1]))))
        return
    if args.load:
        data = json.loads(args.load.read_text())
    elif args.data is None:
        raise SystemExit("give --data, or --load a result.")
    else:
        own = args.cache is None
        args.cache = Path(tempfile.mkdtemp()) if own else args.cache
        try:
            data = everything(args)
        finally:
            if own:
                shutil.rmtree(args.cache, ignore_errors=True)
    lines = report(data)
    print("\n".join(lines))
    if args.markdown:
        renew(args.markdown, "papers", lines)


if __name__ == "__main__":
    main(sys.argv[1:])
