"""Time and memory of a piece of work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def measured(device: str) -> Iterator[dict[str, float]]:
    """Seconds, bytes in use before, and by how much they grew at most (of the device's memory on CUDA)."""
    found: dict[str, float] = {}
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        found["base"] = float(torch.cuda.memory_allocated())
    else:
        _reset_peak()
        found["base"] = _resident("VmRSS")
    start = time.perf_counter()
    yield found
    if cuda:
        torch.cuda.synchronize()
    found["seconds"] = time.perf_counter() - start
    peak = float(torch.cuda.max_memory_allocated()) if cuda else _resident("VmHWM")
    found["grown"] = max(0.0, peak - found["base"])


def _reset_peak() -> None:
    """Let Linux begin to look for the peak anew; elsewhere that of the whole process is told."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _resident(which: str) -> float:
    """Bytes of memory of this process: now (VmRSS), or at the peak (VmHWM)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(which))
    except (OSError, StopIteration):
        import resource  # which Windows does not have

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else 1024 * peak)
