"""Progress callbacks of long-running jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

TRAINING = "training"  # name of the part whose steps are those of a training itself


class ProgressCallback:
    """Progress callback without output; override its methods to display progress."""

    bars = False  # whether trainings show Lightning's progress bars; without them they call `steps`

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Start a part of `total` steps; yields a function to call after each step."""
        yield lambda: None

    def measure(self, name: str) -> None:
        """Report that the time of a stage is measured for an estimate."""

    @contextmanager
    def run(self, estimates: Mapping[str, float | None]) -> Iterator[None]:
        """Start a run of several stages.

        Args:
            estimates: seconds of the stages to run by name; None if unknown.
        """
        yield

    @contextmanager
    def stage(self, name: str, number: int, total: int) -> Iterator[None]:
        """Start the stage of this number, from 1 to `total`, of a run."""
        self.done(f"[{number}/{total}] {name} ...")
        yield

    def done(self, text: str) -> None:
        """Report the end of a part in one line."""
