"""Everything of camplug that a GPU can run, in one call that fits into minutes: tests, speed, trainings.

    python benchmarks/gpu.py --data VOCdevkit/VOC2012 --weights weights --out gpu
    python benchmarks/gpu.py --smoke --out gpu                                     # toy sizes on the CPU: does it run?
    python benchmarks/gpu.py --load gpu/gpu.json --markdown docs/gpu.md

Each step is a process of its own with its own time limit, so that one that fails, hangs or poisons the device does not
stop the others. OUT/gpu.json is written after every step. A step that no longer fits into --seconds is left out, and
told. docs/gpu.md says what the steps are.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from device_data import facts
from gpu_report import report
from markdown_tables import renew

HERE = Path(__file__).parent
ROOT = HERE.parent
LINES = 60  # of what a failed step said
SETTLE = 5.0  # seconds between a step's end and the end of all


@dataclass(frozen=True)
class Task:
    """One command of a step.

    Attributes:
        name: of its part in gpu.json.
        command: what runs; "{json}" is the file that it writes.
        limit: seconds after which it is stopped.
        least: seconds below which it is not begun.
        read: makes its part of gpu.json out of that file.
    """

    name: str
    command: list[str]
    limit: float
    least: float = 10.0
    read: Callable[[Path], Any] = lambda file: json.loads(file.read_text())


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="scenes:16", help="VOCdevkit/VOC2012; drawn scenes without it")
    parser.add_argument("--weights", type=Path, help="folder with voc_animals_lite0.pt and imagenet_lite0.pt")
    parser.add_argument("--out", type=Path, help="folder for gpu.json")
    parser.add_argument("--device", help="by default cuda")
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for everything")
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1), help="processes of tests and papers")
    parser.add_argument("--smoke", action="store_true", help="toy sizes on the CPU")
    parser.add_argument("--load", type=Path, help="measure nothing; print the results of this file")
    parser.add_argument("--markdown", type=Path, help="renew the parts between <!-- gpu_STEP --> marks in this file")
    args = parser.parse_args(argv)
    if args.out is None and args.load is None:
        parser.error("give --out, a folder for the results, or --load a result.")
    if args.device is None:
        args.device = "cpu" if args.smoke else "cuda"
    if args.load is None and args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu runs a step on the CPU, --smoke all of them, small.")
    return args


# ---- steps: what runs, in this order


def tests(args: argparse.Namespace) -> list[Task]:
    """The tests that take a device, in several processes."""
    some = "tests/test_errors.py" if args.smoke else "tests"
    command = [sys.executable, "-m", "pytest", some, "--device", args.device, "-q", "-p", "no:cacheprovider"]
    command += ["--durations=15", "--junitxml={json}", *([] if args.smoke else ["-n", str(args.jobs)])]
    return [Task("tests", command, 240, 40, read_junit)]


def explainers(args: argparse.Namespace) -> list[Task]:
    """Every explainer next to its floors and peers, by model and dtype."""
    if args.smoke:
        size = [
            "--quick",
            "--model",
            "timm:test_vit",
            "--size",
            "160",
            "--device",
            args.device,
            "--methods",
            "camplug_fully",
        ]
        return [Task("test_vit float32", script("explainers", *size, "--json", "{json}"), 60)]
    tasks = []
    for model in ("resnet50", "timm:tf_efficientnet_lite0", "timm:vit_small_patch16_224"):
        for dtype in ("float32", "bfloat16"):
            peers = ["*"] if (model, dtype) == ("resnet50", "float32") else ["camplug_*"]
            options = ["--device", args.device, "--model", model, "--dtype", dtype, "--batch", "1", "8", "64"]
            options += ["--rounds", "15", "9", "5", "--methods", *peers, "--peers-up-to", "8", "--json", "{json}"]
            tasks.append(Task(f"{model.split(':')[-1]} {dtype}", script("explainers", *options), 90, 20))
    return tasks


def refinement(args: argparse.Namespace) -> list[Task]:
    """Dense CRF, random walk and PAR against their CPU forms."""
    size = ["--size", "60", "80", "--classes", "3", "--rounds", "1"] if args.smoke else []
    return [Task("refinement", script("device_refinement", "--device", args.device, *size, "--json", "{json}"), 90)]


def seeds(args: argparse.Namespace) -> list[Task]:
    """Seeds of val: images per second, and where the time goes."""
    size = ["--count", "60"]
    if args.smoke:
        size = ["--count", "3", "--long-side", "64", "--explainers", "FullyCAM", "--batch", "1"]
    return [Task("seeds", script("device_seeds", *sources(args), *size, "--json", "{json}"), 120, 30)]


def training(args: argparse.Namespace) -> list[Task]:
    """A short training of every kind, with mixed precision and without."""
    size = (
        ["--batch", "4", "--crop", "64", "--count", "8", "--workers", "0", "--dtypes", "float32"] if args.smoke else []
    )
    return [Task("training", script("device_training", *sources(args), *size, "--json", "{json}"), 210, 60)]


def papers(args: argparse.Namespace) -> list[Task]:
    """The trainings of the papers: as many rows as there is time for."""
    size = ["--jobs", str(args.jobs), "--workers", "1", "--dtype", "auto", "--seconds", "{left}"]
    if args.smoke:
        size = [
            "--batch",
            "4",
            "--crop",
            "48",
            "--long-side",
            "64",
            "--epochs",
            "1",
            "--seeds",
            "0",
            "--rows",
            "ordinary",
        ]
    return [Task("papers", script("papers", *sources(args), *size, "--json", "{json}"), float("inf"), 60)]


def plan(args: argparse.Namespace) -> list[Task]:
    """The cost of COCO by one measured step of every stage."""
    size = ["--no-probe"] if args.smoke else []
    return [Task("plan", script("device_plan", "--device", args.device, *size, "--json", "{json}"), 150, 40)]


STEPS = {f.__name__: f for f in (tests, explainers, refinement, seeds, training, plan, papers)}


def script(name: str, *options: str) -> list[str]:
    """The command of one of the benchmarks here."""
    return [sys.executable, str(HERE / f"{name}.py"), *options]


def sources(args: argparse.Namespace) -> list[str]:
    """The device, the data and the weights, as options of a benchmark."""
    weights = [] if args.weights is None else ["--weights", str(args.weights.resolve())]
    data = args.data if args.data.startswith("scenes:") else str(Path(args.data).resolve())
    return ["--device", args.device, "--data", data, *weights]


def read_junit(file: Path) -> dict[str, Any]:
    """The counts of a test run, and the failures with the ends of their messages."""
    cases = list(ET.parse(file).getroot().iter("testcase"))
    failed, skipped = [], {}
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        for bad in (*case.findall("failure"), *case.findall("error")):
            failed.append({"test": name, "says": (bad.text or bad.get("message") or "")[-1500:]})
        for skip in case.findall("skipped"):
            reason = skip.get("message") or ""
            skipped[reason] = skipped.get(reason, 0) + 1
    passed = len(cases) - len(failed) - sum(skipped.values())
    return {"passed": passed, "failed": failed, "skipped": skipped}


# ---- running


def run(task: Task, seconds: float, one_thread: bool) -> dict[str, Any]:
    """Run a task for at most so many seconds: its status, what it measured, and what it said if it failed."""
    limit = min(task.limit, seconds)
    left = str(max(1.0, limit - 60))  # a row of papers that has begun is finished
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "result", Path(folder) / "log"
        command = [word.replace("{json}", str(file)).replace("{left}", left) for word in task.command]
        start = time.perf_counter()
        code = execute(command, log, limit, one_thread)
        result: dict[str, Any] = {
            "command": shlex.join(["python", *task.command[1:]]).replace(f"{ROOT}/", ""),
            "status": "stopped at its limit" if code is None else "done" if code == 0 else f"failed, exit code {code}",
            "seconds": round(time.perf_counter() - start, 1),
            "limit": None if limit == float("inf") else round(limit),
        }
        if file.exists():
            result["result"] = task.read(file)
        if code != 0:
            result["says"] = log.read_text(errors="replace").splitlines()[-LINES:]
    return result


def execute(command: list[str], log: Path, limit: float, one_thread: bool) -> int | None:
    """Run a command in a new process that writes into a log, and return its exit code, or None if it was stopped."""
    with log.open("w") as opened:
        process = subprocess.Popen(
            command,
            stdout=opened,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment(one_thread),
            start_new_session=True,
        )
        try:
            return process.wait(None if limit == float("inf") else limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None


def environment(one_thread: bool) -> dict[str, str]:
    """Return the environment of a step: it imports this checkout, whether camplug is installed or not."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    threads = {"OMP_NUM_THREADS": "1"} if one_thread else {}
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join(p for p in paths if p), "PYTHONUNBUFFERED": "1"}


def commit() -> str | None:
    """The environment variable CAMPLUG_COMMIT, for copies of a checkout, or else the commit of this one."""
    if "CAMPLUG_COMMIT" in os.environ:
        return os.environ["CAMPLUG_COMMIT"]
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def everything(args: argparse.Namespace, command: str) -> dict[str, Any]:
    """Run the steps; the file is written after each task."""
    began = time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"command": command, "commit": commit(), "machine": facts(args.device), "steps": {}}
    file = args.out / "gpu.json"
    if args.device.startswith("cuda"):
        data["driver"] = driver()
    for step in args.steps:
        done = data["steps"][step] = {}
        for task in STEPS[step](args):
            left = args.seconds - (time.perf_counter() - began) - SETTLE
            if left < task.least:
                done[task.name] = {
                    "status": f"left out: {max(0, left):.0f} s were left of --seconds {args.seconds:.0f}"
                }
            else:
                done[task.name] = run(task, left, args.smoke)
            print(
                f"{step}, {task.name}: {done[task.name]['status']} ({done[task.name].get('seconds', 0)} s)", flush=True
            )
            data["seconds"] = round(time.perf_counter() - began, 1)
            file.write_text(json.dumps(data, indent=1) + "\n")
    return data


def driver() -> str | None:
    """The version of the CUDA driver, as nvidia-smi tells it."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def main(argv: list[str]) -> None:
    args = parsed(argv)
    data = (
        json.loads(args.load.read_text())
        if args.load
        else everything(args, f"python benchmarks/gpu.py {shlex.join(argv)}")
    )
    if args.load or args.markdown:
        for section, lines in report(data).items():
            if args.markdown:
                renew(args.markdown, f"gpu_{section}", lines)
            else:
                print("\n".join(lines))
    states = [task["status"] for step in data["steps"].values() for task in step.values()]
    if args.load is None and any(not state.startswith(("done", "left out")) for state in states):
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
