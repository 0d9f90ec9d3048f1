"""Progress of trainings on a terminal, and their end on Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from camplug.cli import common
from camplug.wsss.train.progress import ProgressCallback

STOPPED = 130  # exit code of a command ended by Ctrl-C


class ProgressDisplay(ProgressCallback):
    """Progress bars on a terminal, and one line per stage.

    Args:
        silent: print nothing.
    """

    def __init__(self, silent: bool) -> None:
        self.silent = silent
        self.bars = common.err.is_terminal and not silent

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a progress bar."""
        with common.show_progress(what, total, shown=not self.silent) as advance:
            yield advance

    def done(self, text: str) -> None:
        """Print a line."""
        if not self.silent:
            common.out.print(common.escape_markup(text), soft_wrap=True)


@contextmanager
def handle_interrupt() -> Iterator[None]:
    """Turn Ctrl-C into a note that the command can continue, exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        common.err.print("stopped; run the same command again to continue.")
        raise typer.Exit(STOPPED) from None
