"""What the benchmarks do with their results: measure or load them, print the tables, renew them in the docs."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from markdown_tables import renew
from measure import machine


def add_result_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="write everything here; what is kept there is not measured again")
    parser.add_argument("--load", type=Path, help="measure nothing; print the results of this file")
    parser.add_argument("--markdown", type=Path, help="renew the tables in this file")


def command_line() -> str:
    """The command that is running, as it stands in the docs."""
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def describe_run(*packages: str) -> dict[str, Any]:
    """The command, the machine with the versions of camplug, torch and the packages, and the threads."""
    return {
        "command": command_line(),
        "machine": machine(torch.device("cpu"), ["camplug", "torch", *packages]),
        "threads": int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())),
    }


def tell(
    args: argparse.Namespace, measured: Callable[[], dict[str, Any]], report: Callable[[Any], list[str]], section: str
) -> None:
    """Measure, or load; write, print, and renew `section` of a page."""
    if args.load is None:
        data = measured()
        if args.json is not None:
            args.json.write_text(json.dumps(data, indent=1) + "\n")
    else:
        data = json.loads(args.load.read_text())
    lines = report(data)
    print("\n".join(lines))
    if args.markdown is not None:
        renew(args.markdown, section, lines)


def by_seed(args: argparse.Namespace, facts: dict[str, Any], run: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """The facts and the runs of all seeds, those of the file `--json` kept, each written when it is there."""
    known = json.loads(args.json.read_text())["runs"] if args.json is not None and args.json.exists() else {}
    data = {**facts, "runs": known}
    for seed in args.seeds:
        if str(seed) not in known:
            data["runs"][str(seed)] = run(seed)
            if args.json is not None:
                args.json.write_text(json.dumps(data, indent=1) + "\n")
    return data
