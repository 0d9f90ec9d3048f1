"""Commands that train, their progress and results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from camplug.cli import common
from camplug.cli.options import add_options, read_options
from camplug.cli.progress_display import ProgressDisplay, handle_interrupt
from camplug.cli.walk_network import require_lightning
from camplug.wsss.store.processes import get_shard


def add_command(
    app: typer.Typer, name: str, text: str, groups: tuple[Any, ...], train: Callable[[dict[str, Any], bool], None]
) -> None:
    """Add a command that trains.

    Args:
        app: commands to add it to.
        name: name of the command.
        text: help of the command.
        groups: dataclass instances whose fields are its options.
        train: trains with the given values; gets them and `as_json`.
    """

    def command(
        config: common.Config = None,
        as_json: common.AsJson = False,
        **given: Any,
    ) -> None:
        with handle_interrupt(), common.report_errors():
            require_lightning()
            train(read_options(given, config, *groups), as_json)

    app.command(name, help=text)(add_options(*groups)(command))


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
    if get_shard()[0]:  # torchrun would end the first process, which prints, together with one that fails
        return
    broken = [{"image": name, "error": error} for name, error in done.broken]
    if as_json:
        document = {"folder": str(out), "file": str(done.file), **(facts or {})}
        common.print_json(document | {"images": done.images, "losses": done.losses, "broken": broken})
    common.show_broken(done.broken)
    if broken:
        raise typer.Exit(1)
