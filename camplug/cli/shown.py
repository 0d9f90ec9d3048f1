"""What trainings show on a terminal, and how they end on Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from camplug.cli import common
from camplug.wsss.train.progress import ProgressCallback

STOPPED = 130  # what shells say of a command that Ctrl-C ended


class Shown(ProgressCallback):
    """Progress bars on a terminal, and one line per stage.

    Args:
        silent: no lines and no bars.
    """

    def __init__(self, silent: bool) -> None:
        self.silent = silent
        self.bars = common.err.is_terminal and not silent

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar."""
        with common.progress(what, total, shown=not self.silent) as advance:
            yield advance

    def done(self, text: str) -> None:
        """A line."""
        if not self.silent:
            common.out.print(common.escaped(text), soft_wrap=True)


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C says that the command can go on, exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        common.err.print("stopped; the same command goes on where it was.")
        raise typer.Exit(STOPPED) from None
