"""Progress and results of the trainings."""

from __future__ import annotations

from typing import Any

import typer

from camplug.cli import common
from camplug.cli.progress_display import ProgressDisplay
from camplug.wsss.store.processes import get_shard


def make_display(as_json: bool) -> ProgressDisplay:
    """Return the progress display of a training; only the first process prints."""
    return ProgressDisplay(as_json or get_shard()[0] > 0)


def show_training(done: Any, out: Any, as_json: bool, facts: dict[str, Any] | None = None) -> None:
    """Print the result of a training and the images left out.

    Args:
        done: result of the training.
        out: its folder.
        as_json: print one JSON document.
        facts: further entries of the JSON document.

    Raises:
        typer.Exit: code 1, some images are left out.
    """
    if get_shard()[0] == 0:
        if as_json:
            common.print_json(
                {
                    "folder": str(out),
                    "file": str(done.file),
                    **(facts or {}),
                    "images": done.images,
                    "losses": done.losses,
                    "broken": [{"image": name, "error": error} for name, error in done.broken],
                }
            )
        common.show_broken(done.broken)
    if done.broken:
        raise typer.Exit(1)
