"""The random walk against the dense form of the published code: time, memory, error, labels.

    python benchmarks/walk.py --size 94 125 --classes 3 --dense-rounds 1 --json walk.json
    python benchmarks/walk.py --load walk.json --markdown docs/affinity.md

Dense: T = W / its column sums as an n x n float32 tensor, squared 8 times with torch.matmul, then maps x T^256; written
with as few copies as that allows (the published code holds more). All contenders start from the same planes of pair
affinities [34, h, w] and end with maps [K, h, w]; what is timed contains the making of their matrices. Ours take turns,
`--rounds` times before the first dense round and after each one. With the default size a dense round takes minutes.

The input: affinity 1 - the strongest boundary on the path (radius 5), where the boundary is the colour gradient of a
photograph, scikit-image's astronaut, shrunk to the grid; maps are one bump per class, times 1 - boundary. Regions that
boundaries close off mix slowly: the second largest eigenvalue of P is within 1e-6 of 1 at 94x125 (Lanczos), as it is
for the colour affinity of the same photograph and for smooth random walls; without boundaries it is 1 - 2e-3.

Errors are against all 256 products in float64: the largest difference over the largest value of all maps, and the
largest relative one where a map is above 1/1000 of that value. Labels: argmax of the maps over that value with a
background plane of 0.25.

Memory: each contender runs once more in a process of its own, after a walk on a tiny grid has loaded all libraries;
its peak resident set (VmHWM, reset before, Linux only) less the resident set before, once free memory is given back
to the system. Dense squares once there: each squaring needs the same two matrices.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markdown_tables import renew, table
from measure import MIB, Spread, machine, once, plain
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from camplug.wsss.affinity import (
    SparseAffinity,
    compute_chebyshev_terms,
    make_half_disc,
    propagate,
    slice_ends,
    slice_path,
)

RADIUS, BETA, DOUBLINGS, BACKGROUND = 5, 10, 8, 0.25
STEPS = 2**DOUBLINGS
CPU = torch.device("cpu")
STATUS = Path("/proc/self/status")

Floats = NDArray[np.float32]
Run = Callable[[Floats, Floats], Floats]
"""Planes of pairs and maps in, maps out."""


# ---- contenders


def dense(planes: Floats, maps: Floats, doublings: int = DOUBLINGS) -> Floats:
    h, w = maps.shape[1:]
    n = h * w
    t = torch.zeros(n, n)
    position = torch.arange(n).view(h, w)
    for plane, offset in zip(torch.from_numpy(planes), make_half_disc(RADIUS), strict=True):
        source, destination = (end.reshape(-1) for end in slice_ends(position, *offset))
        value = slice_ends(plane, *offset)[0].reshape(-1)
        t[source, destination] = value
        t[destination, source] = value
    t.fill_diagonal_(1)
    t.pow_(BETA)
    t.div_(t.sum(0, keepdim=True))
    for _ in range(doublings):
        t = torch.matmul(t, t)
    return torch.matmul(torch.from_numpy(maps).reshape(-1, n), t).view(maps.shape).numpy()


def sparse(planes: Floats, maps: NDArray[Any], **options: Any) -> NDArray[Any]:
    affinity = SparseAffinity.from_pairs(planes, make_half_disc(RADIUS))
    return propagate(maps, affinity, STEPS, BETA, **options)


DENSE = "dense, 8 squarings"
CONTENDERS: dict[str, Run] = {
    DENSE: dense,
    "256 products, scipy": lambda planes, maps: sparse(planes, maps, tolerance=None, backend="scipy"),
    "256 products, torch CSR": lambda planes, maps: sparse(planes, maps, tolerance=None, backend="torch"),
    "Chebyshev, scipy": lambda planes, maps: sparse(planes, maps, backend="scipy"),
    "Chebyshev, torch CSR (default)": lambda planes, maps: sparse(planes, maps, backend="torch"),
}


# ---- input


def scene(h: int, w: int, classes: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Planes of pair affinities [34, h, w] and maps [classes, h, w]."""
    photo = Image.fromarray(data.astronaut()).resize((w, h), Image.Resampling.BOX)
    slopes = np.gradient(np.asarray(photo, np.float64), axis=(0, 1))
    boundary = (1 - np.exp(-sum((slope**2).sum(-1) for slope in slopes) / 40**2)).astype(np.float32)
    offsets = make_half_disc(RADIUS)
    planes = np.zeros((len(offsets), h, w), np.float32)
    for plane, offset in zip(planes, offsets, strict=True):
        views = slice_path(boundary, *offset)
        strongest = next(views).copy()
        for view in views:
            np.maximum(strongest, view, out=strongest)
        slice_ends(plane, *offset)[0][:] = 1 - strongest
    y, x = np.mgrid[:h, :w]
    centres = np.random.default_rng(seed).random((classes, 2)) * (h, w)
    width = 2 * (min(h, w) / 6) ** 2
    bumps = np.stack([np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / width) for cy, cx in centres])
    return planes, (bumps * (1 - boundary)).astype(np.float32)


# ---- measuring


def measured(
    planes: Floats, maps: Floats, rounds: int, dense_rounds: int
) -> tuple[dict[str, list[float]], dict[str, Floats]]:
    """Seconds and results of every contender; ours run around each dense round."""
    ours = [name for name in CONTENDERS if name != DENSE]
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    results: dict[str, Floats] = {}

    def run(name: str) -> None:
        def call() -> None:
            results[name] = CONTENDERS[name](planes, maps)

        seconds[name].append(once(lambda: nullcontext(call), CPU)[0])

    def block() -> None:
        for r in range(rounds):
            for i in range(len(ours)):
                run(ours[(r + i) % len(ours)])

    warm_up()
    block()
    for i in range(dense_rounds):
        print(f"dense round {i + 1} of {dense_rounds}", file=sys.stderr, flush=True)
        run(DENSE)
        block()
    return seconds, results


def warm_up() -> None:
    for run in CONTENDERS.values():
        run(*scene(4, 5, 2))


def peak_of(name: str, h: int, w: int, classes: int) -> float | None:
    """Peak resident memory of one run above what was there before, MiB, in a process of its own."""
    command = [sys.executable, __file__, "--size", str(h), str(w), "--classes", str(classes), "--peak-of", name]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"the memory of {name} was not measured: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


def own_peak(name: str, h: int, w: int, classes: int) -> float | None:
    if not STATUS.exists():
        return None
    planes, maps = scene(h, w, classes)
    warm_up()
    gc.collect()
    _give_back_free_memory()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = _resident("VmRSS")
    if name == DENSE:
        dense(planes, maps, doublings=1)
    else:
        CONTENDERS[name](planes, maps)
    return (_resident("VmHWM") - before) / MIB


def _give_back_free_memory() -> None:
    """Without this the run would reuse pages that the making of its input left resident."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def _resident(field: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(field))


def errors(result: Floats, exact: NDArray[np.float64]) -> dict[str, Any]:
    top = exact.max()
    seen = exact > top / 1000
    return {
        "max_error": float(np.abs(result - exact).max() / top),
        "max_relative_error": float((np.abs(result - exact)[seen] / exact[seen]).max()),
        "labels_differing": int((labels(result) != labels(exact)).sum()),
    }


def labels(maps: NDArray[Any]) -> NDArray[np.intp]:
    background = np.full((1, *maps.shape[1:]), BACKGROUND, maps.dtype)
    return np.concatenate([background, maps / maps.max()]).argmax(0)


def everything(args: argparse.Namespace, command: str) -> dict[str, Any]:
    h, w = args.size
    planes, maps = scene(h, w, args.classes)
    exact = sparse(planes, maps.astype(np.float64), tolerance=None)
    seconds, results = measured(planes, maps, args.rounds, args.dense_rounds)
    coefficients, bound = compute_chebyshev_terms(STEPS)
    rows = []
    for name, result in results.items():
        default = STEPS if name.startswith("256") else len(coefficients) - 1
        rows.append(
            {
                "name": name,
                "products": None if name == DENSE else default,
                "seconds": Spread.of(seconds[name]),
                "times": seconds[name],
                "peak_mib": peak_of(name, h, w, args.classes),
                **errors(result, exact),
            }
        )
    rows.sort(key=lambda row: -row["seconds"].median)
    return plain(
        {
            "command": command,
            "machine": machine(CPU, ["camplug", "torch", "scipy", "numpy"]),
            "size": [h, w],
            "classes": args.classes,
            "bound": bound,
            "rows": rows,
        }
    )


# ---- reporting


def report(found: dict[str, Any]) -> list[str]:
    m, (h, w) = found["machine"], found["size"]
    versions = ", ".join(f"{package} {version}" for package, version in m["versions"].items())
    rounds = {row["name"]: len(row["times"]) for row in found["rows"]}
    base = next((row["seconds"]["median"] for row in found["rows"] if row["name"] == DENSE), None)
    lines = [
        f"`{found['command']}`",
        "",
        f"{h}x{w} positions, {found['classes']} classes, {STEPS} steps, beta {BETA}; the bound of the default is "
        f"{found['bound']:.1e}. Median (quartiles) of {max(rounds.values())} rounds, dense {rounds.get(DENSE, 0)}; "
        f"{m['cpu']}, {m['torch threads']} threads for torch, 1 for scipy. {versions}.",
        "",
    ]
    head = ["", "products", "seconds", "dense / this", "peak MiB", "max error", "relative", "labels differing"]
    body = []
    for row in found["rows"]:
        s, peak = row["seconds"], row["peak_mib"]
        body.append(
            [
                row["name"],
                "-" if row["products"] is None else str(row["products"]),
                f"{s['median']:.3g} ({s['low']:.3g} to {s['high']:.3g})",
                "-" if base is None else f"{base / s['median']:.3g}",
                "-" if peak is None else f"{peak:.1f}",
                f"{row['max_error']:.1e}",
                f"{row['max_relative_error']:.1e}",
                f"{row['labels_differing']} of {h * w}",
            ]
        )
    return lines + table(head, body)


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, nargs=2, default=[94, 125], metavar=("H", "W"))
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="of ours, before and after each dense round")
    parser.add_argument("--dense-rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None, help="of torch")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--load", type=Path, help="measure nothing; print the results of this file")
    parser.add_argument("--markdown", type=Path, help="renew the table in this file")
    parser.add_argument("--peak-of", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    args = parsed(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.peak_of:
        print(json.dumps(own_peak(args.peak_of, *args.size, args.classes)))
        return
    command = shlex.join(["python", "benchmarks/walk.py", *argv])
    found = json.loads(args.load.read_text(encoding="utf-8")) if args.load else everything(args, command)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.markdown:
        renew(args.markdown, "walk", report(found))
    else:
        print("\n".join(report(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
