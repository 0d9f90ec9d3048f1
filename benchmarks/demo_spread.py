"""Spread of the figures of `camplug wsss demo` over random seeds, and with one thread and two.

    python benchmarks/demo_spread.py --json docs/figures/demo_spread.json --docs docs/pipeline.md

Takes two to four minutes for each run; runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from markdown_tables import renew, table

PRODUCTS = {
    "seeds": "seeds val",
    "after IRN": "maps val",
    "pseudo-labels": "labels val",
    "DeepLab": "predictions val",
    "with CRF": "predictions crf val",
}
SEEDS = ("classifier.train.seed", "refine.training.seed", "deeplab.seed")


def run(cache: Path, threads: int, seed: int) -> dict[str, Any]:
    """Return the mIoU in percent of each product of a demo."""
    out = cache / f"threads{threads}_seed{seed}"
    if not (out / "report.json").exists():
        changes = [word for name in SEEDS for word in ("--set", f"{name}={seed}")] if seed else []
        subprocess.run(
            [sys.executable, "-m", "camplug", "wsss", "demo", "--no-open", "--out", str(out), *changes],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            check=True,
        )
    report = json.loads((out / "report.json").read_text())
    miou = {score["product"]: 100 * score["miou"]["present"] for score in report["scores"]}
    versions = {name: report["versions"].get(name) for name in ("camplug", "torch")}
    return {"threads": threads, "seed": seed, "versions": versions, "miou": {k: miou[p] for k, p in PRODUCTS.items()}}


def lines_of(runs: list[dict[str, Any]]) -> list[str]:
    """Return the table: each run's figures, and their mean and standard deviation by the number of threads."""
    body = []
    for threads in sorted({run["threads"] for run in runs}):
        own = [run for run in runs if run["threads"] == threads]
        called = "1 thread" if threads == 1 else f"{threads} threads"
        body += [[f"{called}, seed {run['seed']}", *(f"{v:.1f}" for v in run["miou"].values())] for run in own]
        values = [[run["miou"][name] for run in own] for name in PRODUCTS]
        spread = [f"{statistics.mean(v):.1f} ± {statistics.stdev(v):.1f}" if len(v) > 1 else "" for v in values]
        body.append([f"{called}, mean ± standard deviation", *spread])
    command = "`python benchmarks/demo_spread.py --json docs/figures/demo_spread.json --docs docs/pipeline.md`"
    return [command, "", *table(["mIoU on val", *PRODUCTS], body)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path("runs/demo_spread"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 2], help="How many, for each number of threads.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    pairs = zip(given.threads, given.seeds, strict=True)
    runs = [run(given.cache, threads, seed) for threads, count in pairs for seed in range(count)]
    lines = lines_of(runs)
    print("\n".join(lines))
    if given.json is not None:
        given.json.write_text(json.dumps(runs, indent=1) + "\n")
    if given.docs is not None:
        renew(given.docs, "demo_spread", lines)


if __name__ == "__main__":
    main()
