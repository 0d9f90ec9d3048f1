"""Run a job over a data set, with a progress bar and a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from camplug.cli import common
from camplug.wsss.store.jobs import Report
from camplug.wsss.store.processes import get_shard, wait_for_processes


def run_job(
    command: str,
    what: str,
    folder: Path,
    images: int,
    make: Callable[..., Report],
    *,
    as_json: bool,
    facts: dict[str, Any] | None = None,
    finish: Callable[[], object] | None = None,
) -> None:
    """Make this process's share of a job, print a report, and wait for the other processes.

    Args:
        command: name of the command.
        what: name of the results, for messages.
        folder: folder of the results.
        images: number of images of all processes.
        make: makes the results; takes `shard` and `step`, see `camplug.wsss.store.jobs.for_each`.
        as_json: print one JSON document, not a line.
        facts: further entries of the JSON document.
        finish: function called when all results are made, broken images or not.

    Raises:
        typer.Exit: code 1, some images are broken.
    """
    rank, world = get_shard()
    start = time.perf_counter()
    with common.show_progress(what, len(range(rank, images, world)), shown=rank == 0) as advance:
        report = make(shard=(rank, world), step=lambda _: advance())
    seconds = time.perf_counter() - start
    if finish is not None:
        finish()
    if as_json:
        common.print_json(_describe(report, folder, seconds, (rank, world), facts or {}))
    else:
        part = f" (share {rank + 1} of {world})" if world > 1 else ""
        text = f"{folder}{part}: {report.made} {what} made, {report.found} were there"
        if report.made:
            megabytes = report.bytes / report.made / 1e3
            text += f"; {seconds / report.made:.2f} s per image, {megabytes:.1f} MB per 1000 images"
        common.out.print(common.escape_markup(text), soft_wrap=True)
    common.show_broken(report.broken)
    wait_for_processes(command, needed=False)
    if report.broken:
        raise typer.Exit(1)


def _describe(
    report: Report, folder: Path, seconds: float, shard: tuple[int, int], facts: dict[str, Any]
) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "shard": list(shard),
        "made": report.made,
        "found": report.found,
        "seconds_per_image": seconds / report.made if report.made else None,
        "megabytes_per_1000_images": report.bytes / report.made / 1e3 if report.made else None,
        **facts,
        "broken": [{"image": name, "error": error} for name, error in report.broken],
    }
