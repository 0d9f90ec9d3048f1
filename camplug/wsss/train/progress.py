"""Who is told how a training goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ProgressCallback:
    """Is told how a training goes, and keeps it to itself."""

    bars = False  # whether Lightning shows its own

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """A stage of so many steps; yields what is called after each."""
        yield lambda: None

    def done(self, text: str) -> None:
        """A stage is over, in one line."""
