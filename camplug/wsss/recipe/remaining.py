"""Remaining time of a run, from estimates of its stages that are corrected by the time the work really takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

TRUST = 0.05  # weight of the estimates against what was measured, as a share of all work


class RemainingTime:
    """Remaining time of a run.

    Work is counted in estimated seconds. A finished stage counts with its estimate, the current one with the share of
    its estimate that is done. After t seconds for an amount of work W, the remaining work R is taken to last

        R (t + a) / (W + a),   a = 5 % of all work,

    so that estimates which are all too low or too high by a factor are corrected while the run goes on.

    Args:
        estimates: seconds of the stages to run by name; None for those that could not be estimated.
        clock: clock in seconds.
    """

    def __init__(self, estimates: Mapping[str, float | None], clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.waiting = dict(estimates)
        self.total = sum(seconds or 0.0 for seconds in estimates.values())
        self.work = self.spent = 0.0
        self.current: float | None = None
        self.share = self.start = 0.0

    def begin(self, name: str) -> None:
        """Begin a stage."""
        self.current, self.share, self.start = self.waiting.pop(name, None), 0.0, self.clock()

    def end(self) -> None:
        """End the current stage."""
        self.share = 1.0
        self.work, self.spent = self._add_current()
        self.current = None

    def estimate(self) -> float | None:
        """Return the remaining seconds; None if no stage could be estimated."""
        if not self.total:
            return None
        work, spent = self._add_current()
        trust = TRUST * self.total
        return max(0.0, self.total - work) * (spent + trust) / (work + trust)

    @property
    def done(self) -> float:
        """Share of the work that is done, from 0 to 1; 0 if no stage could be estimated."""
        return min(1.0, self._add_current()[0] / self.total) if self.total else 0.0

    @property
    def is_complete(self) -> bool:
        """True if all stages that are left have an estimate."""
        return None not in self.waiting.values()

    def _add_current(self) -> tuple[float, float]:
        """Return work and time with those of the current stage."""
        if self.current is None:
            return self.work, self.spent
        return self.work + self.share * self.current, self.spent + self.clock() - self.start

    def __str__(self) -> str:
        """Return the remaining time in words; empty if unknown."""
        seconds = self.estimate()
        if seconds is None:
            return ""
        about = "about" if self.is_complete else "more than"
        if seconds < 60:
            return "less than a minute left" if self.is_complete else f"{about} a minute left"
        if seconds < 3600:
            return f"{about} {math.ceil(seconds / 60)} min left"
        return f"{about} {seconds / 3600:.1f} h left"
