"""Time, floating-point operations and memory of camplug's explainers, their peers, and bare PyTorch, in one run.

    python benchmarks/explainers.py --batch 1 8 --rounds 9 5 --json docs/figures/explainers_cpu.json
    python benchmarks/explainers.py --load docs/figures/explainers_cpu.json --markdown docs/benchmarks.md
    python benchmarks/explainers.py --device cuda --model timm:vit_small_patch16_224 --dtype bfloat16 --batch 1 8 64

The peers come with `pip install camplug[bench]`; one that is missing is left out, and said. docs/benchmarks.md tells
what is measured and how.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import shlex
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from contenders import CONTENDERS, FLOORS, JOBS, Contender, Setting, agreement, taped_layers
from markdown_tables import renew, table
from measure import Spread, clean, gflop, interleaved, machine, memory, physical_cores, plain, ratios

import camplug

PACKAGES = ["camplug", "torch", "torchvision", "grad-cam", "torchcam", "captum", "numpy"]
DIFFERS = 1.005  # memory and operations are counted, not timed; anything above half a percent is a difference
UNEVEN = 1.5  # quartiles further apart than this: something else was running
LAYERS = {  # the layer of the one-layer methods
    "resnet50": "layer4",
    "timm:tf_efficientnet_lite0": "bn2",
    "timm:vit_small_patch16_224": "blocks.11.norm1",
    "timm:test_vit": "blocks.5.norm1",
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STARVED = 0.75  # so is it where the threads were on the processor for less than this share of the time


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="resnet50", help="of torchvision, or timm:NAME; random weights")
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES), help="of the model and the images")
    parser.add_argument("--layer", help=f"the layer of the one-layer methods; known: {', '.join(LAYERS)}")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, nargs="+", default=[9], help="for each batch size; the last one goes on")
    parser.add_argument("--peers-up-to", type=int, metavar="BATCH", help="leave them out of larger batches")
    parser.add_argument("--classes", type=int, default=20, help="classes of one image, explained at batch size 1")
    parser.add_argument("--methods", nargs="+", default=["*"], help='names or globs such as "camplug_*"; floors always')
    parser.add_argument("--quick", action="store_true", help="batch 1, 3 rounds, 3 classes: does it run?")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--load", type=Path, help="measure nothing; print the results of this file")
    parser.add_argument(
        "--markdown", type=Path, nargs="?", const=Path("-"), help="print Markdown, or renew it in a file"
    )
    args = parser.parse_args(argv)
    if args.quick:
        args.batch, args.rounds, args.classes = [1], [3], 3
    args.rounds += args.rounds[-1:] * (len(args.batch) - len(args.rounds))
    args.layer = args.layer or LAYERS.get(args.model)
    if args.layer is None and args.load is None:
        parser.error(f"--layer is missing: which layer of {args.model} do the one-layer methods read?")
    return args


# ---- measuring


def measured(args: argparse.Namespace, command: str) -> dict[str, Any]:
    """Everything that is written as JSON; the file holds each batch size as soon as it is measured."""
    device = torch.device(args.device)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", physical_cores())))
    torch.manual_seed(0)
    name = args.model if ":" in args.model else f"torchvision:{args.model}"
    model = camplug.load_model(name, pretrained=False).to(device, DTYPES[args.dtype])
    images = torch.randn(max(args.batch), 3, args.size, args.size).to(device, DTYPES[args.dtype])
    with torch.no_grad():
        logits = model(images)
    chosen = [c for c in CONTENDERS if c.origin == "floor" or any(fnmatch(c.key, m) for m in args.methods)]
    missing = sorted({c.origin for c in chosen if not c.installed})
    chosen = [c for c in chosen if c.installed]
    if is_transformer(model, images[:1]):  # the peers need a function that lays the tokens on a grid
        chosen = [c for c in chosen if c.origin in ("floor", "camplug")]
    many = logits[0].topk(args.classes).indices.tolist()
    gc.collect()
    gc.freeze()  # what is loaded by now is not looked through again and again, which takes longer than what is measured
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for batch, rounds in zip(args.batch, args.rounds, strict=True):
        setting = Setting(model, images[:batch], logits[:batch].argmax(1).tolist(), many, args.layer)
        running = [c for c in chosen if c.label not in failed and (c.job != "classes" or batch == 1)]
        if args.peers_up_to is not None and batch > args.peers_up_to:
            running = [c for c in running if c.origin in ("floor", "camplug")]
        rows += measured_batch(running, setting, device, rounds, failed)
        data = {
            "command": command,
            "model": args.model,
            "dtype": args.dtype,
            "convolutions": len(setting.convs),
            "layer": args.layer,
            "size": args.size,
            "classes": args.classes,
            "device": device.type,
            "machine": machine(device, PACKAGES),
            "left out": missing,
            "failed": failed,
            "agreement": {},
            "rows": rows,
        }
        write(args.json, data)
    setting = Setting(model.double(), images[:2].double(), logits[:2].argmax(1).tolist(), many, args.layer)
    with clean(model):
        origins = {c.origin for c in chosen if c.label not in failed}
        data["agreement"] = agreement(
            setting, origins
        )  # in float64, where rounding does not hide or feign a difference
    write(args.json, data)
    return data


def write(file: Path | None, data: dict[str, Any]) -> None:
    """Write the results, if a file is wanted."""
    if file:
        file.write_text(json.dumps(data, indent=1) + "\n")


def is_transformer(model: torch.nn.Module, x: torch.Tensor) -> bool:
    """Whether "convs" are token layers here."""
    return len(taped_layers(model, x)) > sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())


def measured_batch(
    running: list[Contender], setting: Setting, device: torch.device, rounds: int, failed: dict[str, str]
) -> list[dict[str, Any]]:
    """Counts, then interleaved times, of all contenders at one batch size; a peer that raises is left out, and told."""
    batch = setting.x.shape[0]
    counts = {}
    for c in running:
        say(f"batch {batch}: counting {c.label}")
        try:
            with clean(setting.model):
                operations = gflop(c.opener(setting))
            with clean(setting.model):
                counts[c.key] = (operations, memory(c.opener(setting), device))
        except Exception as error:
            if c.origin in ("floor", "camplug"):
                raise
            failed[c.label] = f"{type(error).__name__}: {error}".splitlines()[0]
    running = [c for c in running if c.key in counts]
    say(f"batch {batch}: timing {len(running)} contenders in {rounds} rounds")
    times = interleaved({c.key: c.opener(setting) for c in running}, setting.model, device, rounds)
    wall = {key: [w for w, _ in pairs] for key, pairs in times.items()}
    cpu = {key: [p for _, p in pairs] for key, pairs in times.items()}
    single = {c.origin: c.key for c in reversed(running) if c.job == "layer"}
    single["floor"] = FLOORS["layer"]
    rows = []
    for c in running:
        operations, used = counts[c.key]
        one = single.get(c.origin) if c.job == "classes" else None
        row = {
            "batch": batch,
            "job": c.job,
            "key": c.key,
            "label": c.label,
            "library": c.origin,
            "wall_ms": Spread.of([1000 * t for t in wall[c.key]]),
            "cpu_ms": Spread.of([1000 * t for t in cpu[c.key]]) if device.type == "cpu" else None,
            "floor": FLOORS[c.job],
            "times_floor": ratios(wall[c.key], wall[FLOORS[c.job]]),
            "times_one_class": ratios(wall[c.key], wall[one]) if one else None,
            "gflop_per_image": operations / (1 if c.job == "classes" else batch),
            "memory_mib": used,
            "rounds_wall_s": wall[c.key],
            "rounds_cpu_s": cpu[c.key],
        }
        rows.append(plain(row))
    return rows


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- judging


def compared(data: dict[str, Any], against_floor: bool) -> list[str]:
    """Where another library (or bare PyTorch) does the same job in less time or with less; one sentence each."""
    found = []
    for mine in (r for r in data["rows"] if r["library"] == "camplug"):
        for other in data["rows"]:
            same_job = (other["job"], other["batch"]) == (mine["job"], mine["batch"])
            if same_job and other["library"] != "camplug" and (other["library"] == "floor") == against_floor:
                found += [f"Batch {mine['batch']}: {mine['label']} {loss}" for loss in losses(mine, other)]
    return found


def losses(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    found = []
    wall = ratios(mine["rounds_wall_s"], other["rounds_wall_s"])
    cpu = ratios(mine["rounds_cpu_s"], other["rounds_cpu_s"]) if mine["cpu_ms"] else None
    if wall.median > 1:
        also = f" (CPU time {cpu.median:.2f}x)" if cpu else ""
        tie = "; the quartiles include 1: no clear difference" if wall.low <= 1 else ""
        found.append(f"takes {times(plain(wall))} the time of {other['label']}{also}{tie}.")
    elif cpu and cpu.low > 1:
        found.append(f"takes {times(plain(cpu))} the CPU time of {other['label']}, though not its wall time.")
    pairs = [("gflop_per_image", "operations", "GFLOP per image", mine, other)]
    pairs += [(k, f"{k} memory", "MiB", mine["memory_mib"], other["memory_mib"]) for k in ("peak", "held", "left")]
    for key, name, unit, a, b in pairs:
        if a[key] > max(DIFFERS * b[key], b[key] + 0.05):
            found.append(f"has more {name} than {other['label']}: {a[key]:.1f} instead of {b[key]:.1f} {unit}.")
    return found


def bounds(data: dict[str, Any]) -> list[tuple[str, float, float]]:
    """What ResNet-50 at 224x224 is held to: (what, value, limit)."""
    if (data["model"], data["size"]) != ("resnet50", 224):
        return []
    rows = {(r["key"], r["batch"]): r for r in data["rows"]}
    found = []
    for (key, batch), row in rows.items():
        if row["library"] != "camplug" or key == "camplug_layercam":
            continue
        if key != "camplug_classes":
            gflop_limit, mib_limit = (8.20, 1.05 * 86) if key == "camplug_gradcam" else (16.2, 700)
            found.append((f"{row['label']}, batch {batch}: GFLOP per image", row["gflop_per_image"], gflop_limit))
            if batch == 8 and data["device"] == "cpu":
                found.append((f"{row['label']}, batch 8: peak MiB", row["memory_mib"]["peak"], mib_limit))
        elif row["times_one_class"]:
            what = f"{data['classes']} classes of one image: time / one class"
            found.append((what, row["times_one_class"]["median"], 1.2))
        if key == "camplug_fully":
            found.append((f"{row['label']}, batch {batch}: time / floor", row["times_floor"]["median"], 1.10))
            if peer := rows.get(("torchcam_layercam", batch)):
                value = ratios(row["rounds_wall_s"], peer["rounds_wall_s"]).median
                found.append((f"{row['label']}, batch {batch}: time / torchcam LayerCAM", value, 1.0))
    return found


# ---- showing


def times(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f}x [{spread['low']:.2f}, {spread['high']:.2f}]"


def milliseconds(spread: dict[str, float] | None) -> str:
    if spread is None:
        return "-"
    digits = 0 if spread["median"] >= 20 else 1 if spread["median"] >= 5 else 2
    return f"{spread['median']:.{digits}f} [{spread['low']:.{digits}f}, {spread['high']:.{digits}f}]"


def report(data: dict[str, Any]) -> list[str]:
    """The lines of a Markdown report."""
    m = data["machine"]
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in m["versions"].items())
    processor = f"{m['gpu']}; host: " if m["gpu"] else ""
    lines = [
        f"`{data['command']}`",
        "",
        f"Machine: {processor}{m['cpu']}, {m['cores']} cores, {m['torch threads']} torch threads, {m['system']}, "
        f"Python {m['python']}. Versions: {versions}. Model: {data['model']}, random weights, "
        f"{data.get('dtype', 'float32')}, images of {data['size']}x{data['size']}; the one layer is {data['layer']}, "
        f"and there are {data['convolutions']} convolutions or token layers.",
        "",
    ]
    lines += [f"Left out, because not installed: {', '.join(data['left out'])}.", ""] if data["left out"] else []
    lines += [f"Fails: {what}: {error}" for what, error in data.get("failed", {}).items()]
    lines += [""] if data.get("failed") else []
    if count := sum(disturbed(r, m["torch threads"]) for r in data["rows"]):
        share = f"{count} of {len(data['rows'])} rows"
        lines += [f"**Disturbed run:** something else took processor time during {share}; measure again.", ""]
    for batch in sorted({r["batch"] for r in data["rows"]}):
        for job, title in JOBS.items():
            rows = [r for r in data["rows"] if (r["batch"], r["job"]) == (batch, job)]
            if not rows:
                continue
            what = (
                f"{title.replace('Many', str(data['classes']))}, batch {batch}, {len(rows[0]['rounds_wall_s'])} rounds"
            )
            lines += [f"### {what}", "", *job_table(sorted(rows, key=in_order), job)]
    lines += [
        "### Do they compute the same?",
        "",
        "Largest difference from camplug's maps, whose maximum is 1, in float64:",
        "",
    ]
    lines += [*(f"- {what}: {value:.1e}" for what, value in data["agreement"].items()), ""]
    lines += ["### Where camplug is not first", ""]
    lines += [*(f"- {loss}" for loss in compared(data, against_floor=False) or ["Nowhere in this run."]), ""]
    lines += ["### What bare PyTorch, which makes no map, needs less of", ""]
    lines += [*(f"- {loss}" for loss in compared(data, against_floor=True) or ["Nothing in this run."]), ""]
    if held := bounds(data):
        head = ["camplug is held to", "measured", "limit", ""]
        body = [
            [what, f"{value:.2f}", f"{limit:.2f}", "met" if value <= limit else "MISSED"] for what, value, limit in held
        ]
        lines += ["### Limits", "", *table(head, body)]
    return lines


def disturbed(row: dict[str, Any], threads: int) -> bool:
    """Whether the quartiles are far apart, or the threads got much less than their time on the processor."""
    wall, cpu = row["wall_ms"], row["cpu_ms"]
    starved = cpu is not None and cpu["median"] < STARVED * threads * wall["median"]
    return bool(starved or wall["high"] > UNEVEN * wall["low"])


def in_order(row: dict[str, Any]) -> tuple[int, float]:
    """Floors first, as defined; then by time."""
    return (0, 0) if row["library"] == "floor" else (1, row["wall_ms"]["median"])


def job_table(rows: list[dict[str, Any]], job: str) -> list[str]:
    head = ["", "ms", "/ floor", "images/s", "CPU ms", "GFLOP/image", "peak MiB", "held MiB", "left MiB"]
    if job == "classes":
        head.insert(3, "/ one class")
    body = []
    for r in rows:
        used = (f"{r['memory_mib'][key]:.1f}" for key in ("peak", "held", "left"))
        cells = [r["label"], milliseconds(r["wall_ms"]), times(r["times_floor"])]
        if job == "classes":
            cells.append(times(r["times_one_class"]) if r["times_one_class"] else "-")
        images = 1 if job == "classes" else r["batch"]
        cells.append(f"{1000 * images / r['wall_ms']['median']:.3g}")
        body.append([*cells, milliseconds(r["cpu_ms"]), f"{r['gflop_per_image']:.2f}", *used])
    return table(head, body)


def section_of(data: dict[str, Any]) -> str:
    """Return the mark of a result in the docs: explainers_cpu for ResNet-50 in float32, else with model and dtype."""
    usual = (data["model"], data.get("dtype", "float32")) == ("resnet50", "float32")
    return f"explainers_{data['device']}" + ("" if usual else f"_{data['model'].split(':')[-1]}_{data['dtype']}")


def main(argv: list[str]) -> None:
    args = parsed(argv)
    logging.getLogger("torchcam").setLevel(logging.ERROR)
    if args.load:
        data = json.loads(args.load.read_text())
    else:
        data = measured(args, f"python benchmarks/explainers.py {shlex.join(argv)}".strip())
    if args.load:
        write(args.json, data)
    lines = report(data)
    if args.markdown and args.markdown != Path("-"):
        renew(args.markdown, section_of(data), lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
