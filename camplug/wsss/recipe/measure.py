"""Measurement of time and memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def measure(device: str) -> Iterator[dict[str, float]]:
    """Yield a dict that gets the seconds, the bytes in use before ("base") and their growth at the peak ("grown").

    On CUDA the bytes are those of the device's memory.
    """
    found: dict[str, float] = {}
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        found["base"] = float(torch.cuda.memory_allocated())
    else:
        _reset_peak()
        found["base"] = _read_memory("VmRSS")
    start = time.perf_counter()
    yield found
    if cuda:
        torch.cuda.synchronize()
    found["seconds"] = time.perf_counter() - start
    peak = float(torch.cuda.max_memory_allocated()) if cuda else _read_memory("VmHWM")
    found["grown"] = max(0.0, peak - found["base"])


def _reset_peak() -> None:
    """Reset the peak of memory on Linux; elsewhere the peak is that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _read_memory(which: str) -> float:
    """Return the memory of this process in bytes: now (VmRSS) or at the peak (VmHWM)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(which))
    except (OSError, StopIteration):
        import resource  # which Windows does not have

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else 1024 * peak)


def format_seconds(seconds: float) -> str:
    """Return a duration in words.

    >>> format_seconds(4.2), format_seconds(100), format_seconds(5000)
    ('4.2 s', '1.7 min', '1.4 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
