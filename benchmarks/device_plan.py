"""Measure what a recipe costs on a device, at the full size of its data, by one step of every stage: docs/gpu.md.

    python benchmarks/device_plan.py --device cuda --json plan.json

Each stage runs on one synthetic picture of the data's usual size, each training for one step; the rest is multiplied.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from device_data import facts
from markdown_tables import table

from camplug.wsss.recipe import plan_recipe, read_recipe
from camplug.wsss.recipe.measure import format_seconds

TOGETHER = 8  # devices of the last column


def measure(recipe: str, device: str, probe: bool) -> dict[str, Any]:
    """Return the stages of a recipe with their costs, in seconds and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        rows = plan_recipe(read_recipe(recipe), folder, probe=probe, device=device, notify=_show)
    return {"recipe": recipe, "machine": facts(device), "stages": [asdict(row) for row in rows]}


def _show(stage: str) -> None:
    print(f"measuring {stage}", file=sys.stderr, flush=True)


def report(data: dict[str, Any]) -> list[str]:
    """Return the lines of a Markdown report."""
    stages = data["stages"]
    body = [
        [
            row["stage"],
            "?" if row["images"] is None else f"{row['images']:,}",
            str(row["epochs"] or ""),
            "-" if row["seconds"] is None else format_seconds(row["seconds"]),
            "-" if not row["seconds"] or not row["images"] else f"{_find_rate(row):.1f}",
            "-" if row["memory"] is None else f"{row['memory'] / 1e9:.1f} GB",
        ]
        for row in stages
    ]
    total = sum(row["seconds"] or 0 for row in stages)
    shared = sum(
        (row["seconds"] or 0) / (1 if row["stage"].startswith(("evaluate", "cut")) else TOGETHER) for row in stages
    )
    return [
        *table(["stage", "images", "epochs", "time", "images/s", "memory"], body),
        "",
        f"Recipe {data['recipe']}: {format_seconds(total)} on one device. On {TOGETHER}, if every stage but thresholds "
        f"and scores is shared without loss, {format_seconds(shared)}; this is arithmetic, not a measurement.",
        "",
    ]


def _find_rate(row: dict[str, Any]) -> float:
    return float(row["images"] * (row["epochs"] or 1) / row["seconds"])


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", default="coco14_fully_cam_irn")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-probe", action="store_true", help="measure nothing")
    parser.add_argument("--json", type=Path, required=True, help="write everything here")
    args = parser.parse_args(argv)
    data = measure(args.recipe, args.device, not args.no_probe)
    args.json.write_text(json.dumps(data, indent=1) + "\n")
    print("\n".join(report(data)))


if __name__ == "__main__":
    main(sys.argv[1:])
