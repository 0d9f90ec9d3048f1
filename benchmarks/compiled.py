"""Processor time of Fully-CAM over all convolutions: bare gradients, eager, and compiled by `camplug.Compiled`.

    python benchmarks/compiled.py --model resnet50 --batch 1 8 --rounds 15 7 --json docs/figures/compiled_resnet50.json
    python benchmarks/compiled.py --load docs/figures/compiled_resnet50.json --markdown docs/benchmarks.md

The contenders run in turns, so that other work on the machine disturbs all of them alike.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from contenders import Setting, camplug_fully, floor_convs, floor_convs_channels_last, torchcam_layercam
from markdown_tables import renew, table
from measure import Spread, interleaved, machine, physical_cores, plain, ratios

import camplug

PACKAGES = ["camplug", "torch", "torchvision", "timm", "torchcam"]
LABELS = {
    "floor": "floor: gradients at the convolutions",
    "floor_last": "floor: gradients at the convolutions, channels_last",
    "torchcam": "torchcam LayerCAM, fused",
    "eager": "camplug FullyCAM",
    "compiled": "camplug Compiled(FullyCAM)",
}


@contextmanager
def compiled_call(explainer: camplug.Compiled, s: Setting) -> Iterator[Any]:
    yield lambda: explainer.maps(s.x, s.classes)


def measure_batch(s: Setting, rounds: int) -> dict[str, Any]:
    """Return times of all contenders at one batch size, and what compiling took."""
    explainer = camplug.Compiled(camplug.FullyCAM(s.model))
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of running eagerly
        explainer.maps(s.x, s.classes)
    compiling = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    openers = {
        "floor": lambda: floor_convs(s),
        "floor_last": lambda: floor_convs_channels_last(s),
        "torchcam": lambda: torchcam_layercam(s),
        "eager": lambda: camplug_fully(s),
        "compiled": lambda: compiled_call(explainer, s),
    }
    times = interleaved(openers, s.model, s.x.device, rounds, warmup=2)
    cpu_s = {key: [p for _, p in pairs] for key, pairs in times.items()}
    exact = camplug.FullyCAM(copy.deepcopy(s.model).double()).maps(s.x.double(), s.classes)
    found = {"eager": camplug.FullyCAM(s.model).maps(s.x, s.classes), "compiled": explainer.maps(s.x, s.classes)}
    errors = {key: float((maps - exact).abs().max()) for key, maps in found.items()}
    difference = float((found["compiled"] - found["eager"]).abs().max())
    rows = {
        key: {
            "cpu_ms": Spread.of([1000 * t for t in cpu_s[key]]),
            "wall_ms": Spread.of([1000 * w for w, _ in times[key]]),
            "times_floor": ratios(cpu_s[key], cpu_s["floor"]),
            "eager_by_this": ratios(cpu_s["eager"], cpu_s[key]),
        }
        for key in openers
    }
    return plain(
        {"batch": len(s.classes), "compiling": compiling, "difference": difference, "errors": errors, "rows": rows}
    )


def measure(args: argparse.Namespace, command: str) -> dict[str, Any]:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", physical_cores())))
    torch.manual_seed(0)
    name = args.model if ":" in args.model else f"torchvision:{args.model}"
    model = camplug.load_model(name, pretrained=False)
    images = torch.randn(max(args.batch), 3, 224, 224)
    with torch.no_grad():
        predicted = model(images).argmax(1).tolist()
    data = {"command": command, "model": args.model, "machine": machine(images.device, PACKAGES), "batches": []}
    for batch, rounds in zip(args.batch, args.rounds, strict=True):
        setting = Setting(model, images[:batch], predicted[:batch], [], "")
        data["batches"].append(measure_batch(setting, rounds))
        print(f"batch {batch} measured", file=sys.stderr, flush=True)
        if args.json:
            args.json.write_text(json.dumps(data, indent=1) + "\n")
    return data


def show(spread: dict[str, float], digits: int = 2) -> str:
    return f"{spread['median']:.{digits}f} [{spread['low']:.{digits}f}, {spread['high']:.{digits}f}]"


def report(data: dict[str, Any]) -> list[str]:
    """Return the lines of a Markdown report."""
    m = data["machine"]
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in m["versions"].items())
    lines = [
        f"`{data['command']}`",
        "",
        f"{data['model']}, random weights, 224x224. {m['cpu']}, torch threads: {m['torch threads']}. {versions}.",
        "",
    ]
    for part in data["batches"]:
        body = [
            [LABELS[key], show(row["cpu_ms"], 0), show(row["times_floor"]), show(row["eager_by_this"])]
            for key, row in part["rows"].items()
        ]
        compiling = part["compiling"]
        lines += [
            *table([f"batch {part['batch']}", "CPU ms", "/ floor", "eager / this"], body),
            f"First call, which compiles: {compiling['wall_s']:.0f} s ({compiling['cpu_s']:.0f} s of processor time of "
            f"this process, without the C++ compiler's). Largest difference of a map, whose maximum is 1: compiled to "
            f"eager {part['difference']:.1e}; to float64 {part['errors']['compiled']:.1e} compiled and "
            f"{part['errors']['eager']:.1e} eager.",
            "",
        ]
    return lines


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="resnet50", help="of torchvision, or timm:NAME; random weights")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, nargs="+", default=[15, 7], help="for each batch size")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--load", type=Path, help="measure nothing; print the results of this file")
    parser.add_argument("--markdown", type=Path, help="renew the tables in this file")
    args = parser.parse_args(argv)
    if args.load:
        data = json.loads(args.load.read_text())
    else:
        data = measure(args, f"python benchmarks/compiled.py {shlex.join(argv)}".strip())
    lines = report(data)
    if args.markdown:
        renew(args.markdown, f"compiled_{data['model'].split(':')[-1]}", lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
