"""The papers' ablation tables at small scale, on drawn scenes: the tables of docs/training.md.

    python benchmarks/ablations.py --json docs/figures/ablations.json
    python benchmarks/ablations.py --load docs/figures/ablations.json --markdown docs/training.md

Every row is one command, `camplug train METHOD --config configs/METHOD/ROW.toml ...`, whose seeds by CAM are scored on
the very scenes, as the papers score theirs on their training images. A row takes seconds, one random seed, a network of
four layers: what differs by less than the spread of three seeds, which is printed, says nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shlex
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from markdown_tables import table
from results import add_result_options, describe_run, tell

CONFIGS = Path("configs")
SCENES = ["--data", "scenes:160", "--device", "cpu"]
BUDGET = shlex.split("--optimizer adamw --weight-decay 0.01 --head-lr 1 --cut none --crop 96 --sides 80,128")
START = shlex.split("--model import:benchmarks.small:body --lr 0.003 --batch-norm trained --epochs 30")
FURTHER = shlex.split("--lr 0.001 --batch-norm fixed --epochs 4")
LIGHTER = {  # what makes a row affordable here; the configurations hold what the papers used
    "classifier": [],
    "atm": [],
    "rpnet": shlex.split("--width 64 --scales 1,0.5 --no-each-first"),
    "fpr": shlex.split("--pass-scales 1 --no-pass-flip"),
}
TITLES = {
    "atm/table3": "ATM, table III (views)",
    "atm/table4": "FUM, table IV (parts)",
    "atm/table5": "ATM, table V (weights)",
    "atm/table6": "FUM, table VI (attention)",
    "rpnet/table4": "RPNet, table IV (stages)",
    "rpnet/table5": "RPNet, table V (random parts)",
    "rpnet/table6": "RPNet, table VI (Gaussian)",
    "rpnet/table7": "RPNet, table VII (images)",
    "fpr/table5": "FPR, table 5 (losses)",
    "fpr/figure7a": "FPR, figure 7a (weights)",
    "fpr/figure7b": "FPR, figure 7b (prototypes)",
    "fpr/distance": "FPR, text or code (distance)",
}


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", default=list(TITLES), choices=list(TITLES))
    add_result_options(parser)
    return parser.parse_args(argv)


def camplug(*words: Any) -> dict[str, Any]:
    """What a command says with --json, run in this process."""
    from camplug.cli.app import app

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        code = app([*map(str, words), "--json"], standalone_mode=False)
    if code:
        raise SystemExit(f"exit code {code}: camplug {shlex.join(map(str, words))}")
    return json.loads(said.getvalue())  # type: ignore[no-any-return]


def trained(method: str, out: Path, seed: int, options: list[str]) -> tuple[str, list[str]]:
    """Train once; the file, and the command."""
    words = ["train", method, *SCENES, *BUDGET, *LIGHTER[method], *options, "--seed", str(seed), "--out", str(out)]
    return camplug(*words)["file"], words


def measured(method: str, out: Path, seed: int, options: list[str]) -> dict[str, Any]:
    """Train, make seeds by CAM, and score them."""
    start = time.perf_counter()
    file, words = trained(method, out, seed, options)
    camplug("seeds", *SCENES, "--model", file, "--explainer", "CAM", "--out", out / "seeds")
    report = camplug("evaluate", out / "seeds", *SCENES[:2])
    objects = [row for name, row in report["per_class"].items() if name != "background"]
    found = [row["precision"] for row in objects if row["precision"] is not None]  # None: no pixel was called so
    return {
        "miou": 100 * report["miou"]["present"],
        "recall": 100 * sum(row["recall"] for row in objects) / len(objects),
        "fdr": 100 * (1 - statistics.mean(found or [0.0])),
        "seconds": time.perf_counter() - start,
        "command": shlex.join(["camplug", *words]).replace(str(out.parent), "runs"),
    }


def everything(args: argparse.Namespace) -> dict[str, Any]:
    known = json.loads(args.json.read_text()) if args.json is not None and args.json.exists() else {}
    data: dict[str, Any] = {
        **describe_run("torchvision", "timm", "lightning", "numpy"),
        "tables": known.get("tables", {}),
        "classifier": known.get("classifier", {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        start, words = trained("classifier", Path(folder) / "start", 0, START)
        data["start"] = shlex.join(["camplug", *words]).replace(str(folder), "runs")
        further = ["--model", start, *FURTHER]
        for seed in (0, 1, 2):
            if str(seed) not in data["classifier"]:
                out = Path(folder) / f"classifier{seed}"
                data["classifier"][str(seed)] = measured("classifier", out, seed, further)
        for name in args.tables:
            method, prefix = name.split("/")
            rows = data["tables"].setdefault(name, {})
            for config in sorted(CONFIGS.glob(f"{method}/{prefix}_*.toml")):
                if config.stem in rows:
                    continue
                out = Path(folder) / config.stem
                rows[config.stem] = measured(method, out, 0, ["--config", str(config), *further])
                rows[config.stem]["command"] = rows[config.stem]["command"].replace(str(folder), "runs")
                print(f"{name} {config.stem} {rows[config.stem]['miou']:.1f}", file=sys.stderr, flush=True)
                if args.json is not None:
                    args.json.write_text(json.dumps(data, indent=1) + "\n")
    return data


def described(config: str, method: str) -> tuple[str, str]:
    """The row's name and the paper's figure, from the comments of a configuration."""
    lines = (CONFIGS / method / f"{config}.toml").read_text().splitlines()
    text = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    figure = re.search(r"(\d\d(?:\.\d+)?)(?= mIoU|[ .]|$)(?!\d)", text.partition("VOC 2012")[2].partition(": ")[2])
    return config.partition("_")[2].replace("_", " "), figure[1] if figure else ""


def report(data: dict[str, Any]) -> list[str]:
    """The tables in Markdown."""
    values = [row["miou"] for row in data["classifier"].values()]
    mean, spread = statistics.mean(values), statistics.stdev(values)
    lines = [f"`{data['command']}`", ""]
    lines += [
        "160 scenes, four layers; every row goes on with one ordinary classifier for 4 epochs, once. CAM's seeds "
        f"on the same scenes at their best threshold. Ordinary training instead: {mean:.1f} ± {spread:.1f} mIoU over "
        "three seeds. Behind a neck that learns (FUM, RPNet) a row begins with a new head.",
        "",
    ]
    for name, rows in data["tables"].items():
        method = name.split("/")[0]
        body = []
        for config, row in rows.items():
            label, figure = described(config, method)
            body.append([label, figure, *(f"{row[k]:.1f}" for k in ("miou", "recall", "fdr"))])
        lines += [f"{TITLES[name]}:", "", *table(["", "paper, VOC", "mIoU", "recall", "FDR"], body)]
    return lines


def main(argv: list[str]) -> None:
    args = parsed(argv)
    tell(args, lambda: everything(args), report, "ablations")


if __name__ == "__main__":
    main(sys.argv[1:])
