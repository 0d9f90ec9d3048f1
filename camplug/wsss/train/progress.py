"""Progress callbacks of long-running jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ProgressCallback:
    """Progress callback without output; override its methods to display progress."""

    bars = False  # whether to show Lightning's progress bars

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Start a part of `total` steps; yields a function to call after each step."""
        yield lambda: None

    def done(self, text: str) -> None:
        """Report the end of a part in one line."""
