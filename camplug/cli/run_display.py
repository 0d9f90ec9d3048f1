"""Progress of a whole run: one line that is rewritten on a terminal, elsewhere a line per stage and minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from typing_extensions import override

from camplug.cli import common
from camplug.cli.progress_display import ProgressDisplay
from camplug.wsss.recipe.measure import format_seconds
from camplug.wsss.recipe.remaining import RemainingTime
from camplug.wsss.train.progress import TRAINING

MINUTE = 60.0


class RunDisplay(ProgressDisplay):
    """Overall progress and remaining time of a run.

    Args:
        silent: print nothing.
        console: console of the line; its other text goes to standard output.
        clock: clock in seconds.
    """

    def __init__(
        self, silent: bool, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(silent)
        self.bars = False  # steps of trainings are part of the line
        self.console, self.clock = common.err if console is None else console, clock
        self.live: Progress | None = None
        self.task = TaskID(0)
        self.left = RemainingTime({}, clock)
        self.title, self.printed = "", clock()

    @override
    def measure(self, name: str) -> None:
        if self.console.is_terminal and not self.silent:
            self.console.print(f"estimating the time: {name}\x1b[K", end="\r", markup=False, soft_wrap=True)

    @override
    @contextmanager
    def run(self, estimates: Mapping[str, float | None]) -> Iterator[None]:
        self.left = RemainingTime(estimates, self.clock)
        if self.silent or not self.console.is_terminal:
            yield
            return
        with self._make_line() as self.live:
            self.task = self.live.add_task("", total=1.0, steps="", left=str(self.left))
            try:
                yield
            finally:
                self.live.update(self.task, visible=False)
        self.live = None

    @override
    @contextmanager
    def stage(self, name: str, number: int, total: int) -> Iterator[None]:
        self.title, start = f"[{number}/{total}] {name}", self.clock()
        self.left.begin(name)
        if self.live is None:
            self.done(
                " ... ".join(filter(None, (self.title, str(self.left)))) if self.left.total else f"{self.title} ..."
            )
            self.printed = self.clock()
        self._show("")
        yield
        self.left.end()
        if self.live is not None:
            self.done(f"{self.title}: {format_seconds(self.clock() - start)}")

    @override
    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        made = 0
        counts = what == TRAINING or self.title.endswith(f"] {what}")  # not labels made before a training

        def advance() -> None:
            nonlocal made
            made += 1
            if counts:
                self.left.share = made / max(1, total)
            self._show(f"{made}/{total}")

        yield advance

    def _show(self, steps: str) -> None:
        """Rewrite the line, or print one if the last is a minute old."""
        if self.live is not None:
            text = common.escape_markup(self.title)
            self.live.update(self.task, description=text, completed=self.left.done, steps=steps, left=str(self.left))
        elif steps and self.clock() - self.printed >= MINUTE:
            self.printed = self.clock()
            self.done(f"{self.title}: {', '.join(filter(None, (steps, str(self.left))))}")

    def _make_line(self) -> Progress:
        """Make a line that is no wider than the console."""
        spare = self.console.width - 74
        return Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            BarColumn(bar_width=max(4, min(30, spare))),
            TextColumn("{task.fields[steps]}", table_column=Column(no_wrap=True, justify="right")),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
            console=self.console,
            transient=True,
            expand=True,
            redirect_stdout=sys.stdout.isatty(),  # a log keeps its lines
            refresh_per_second=4,
        )
