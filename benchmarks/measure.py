"""Measuring that knows nothing of camplug: interleaved timing, operations, peak tensor memory, the machine."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

MIB = 2**20

Call = Callable[[], Any]
Opener = Callable[[], AbstractContextManager[Call]]
"""Builds whatever a contender's user builds once (outside of the timing) and yields the call to measure."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one number."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Memory:
    """Tensor memory in MiB, in excess of what was alive before the call."""

    peak: float
    held: float  # after the call, its result dropped, while the explaining object lives
    left: float  # after that object is closed and gone, too


@contextmanager
def clean(model: nn.Module) -> Iterator[None]:
    """No `.grad` before the block and none after it; the flags of the parameters as they were."""
    flags = [p.requires_grad for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    gc.collect()
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        for parameter, flag in zip(model.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)


def once(open_call: Opener, device: torch.device) -> tuple[float, float]:
    """Wall time and CPU time of this process for one call, in seconds; opening and closing are not counted."""
    with open_call() as call:
        _wait(device)
        cpu, wall = time.process_time(), time.perf_counter()
        result = call()
        _wait(device)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        del result
    return wall, cpu


def interleaved(
    openers: Mapping[str, Opener], model: nn.Module, device: torch.device, rounds: int, warmup: int = 1
) -> dict[str, list[tuple[float, float]]]:
    """`once` for every contender in every round; the order moves on by one, and turns around, from round to round."""
    times: dict[str, list[tuple[float, float]]] = {key: [] for key in openers}
    keys = list(openers)
    for r in range(-warmup, rounds):
        shift = r % len(keys)
        order = keys[shift:] + keys[:shift]
        for key in order if r % 2 == 0 else reversed(order):
            with clean(model):
                seconds = once(openers[key], device)
            if r >= 0:
                times[key].append(seconds)
    return times


def ratios(times: Sequence[float], base: Sequence[float]) -> Spread:
    """The spread of the per-round ratios of two contenders that ran in the same rounds."""
    return Spread.of([t / b for t, b in zip(times, base, strict=True)])


def gflop(open_call: Opener) -> float:
    """Floating-point operations of one call in units of 1e9 (a multiply-add counts as two)."""
    with open_call() as call, FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def memory(open_call: Opener, device: torch.device) -> Memory:
    """Peak and remaining tensor memory of one call: CUDA's allocator statistics, or on CPU the profiler's events."""
    return _cuda_memory(open_call, device) if device.type == "cuda" else _cpu_memory(open_call)


def _cuda_memory(open_call: Opener, device: torch.device) -> Memory:
    with open_call() as call:
        _wait(device)
        base = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        _wait(device)
        peak = torch.cuda.max_memory_allocated(device) - base
        gc.collect()
        held = torch.cuda.memory_allocated(device) - base
        del call
    gc.collect()
    return Memory(peak / MIB, held / MIB, (torch.cuda.memory_allocated(device) - base) / MIB)


def _cpu_memory(open_call: Opener) -> Memory:
    opened = open_call()
    call = opened.__enter__()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
        gc.collect()
        with record_function("closing"):
            pass
        del call
        opened.__exit__(None, None, None)
        del opened
        gc.collect()
    events = profiler.profiler.kineto_results.events()
    closing = next(e.start_ns() for e in events if e.name() == "closing")
    alive = peak = held = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
        held = alive if event.start_ns() < closing else held
    return Memory(peak / MIB, held / MIB, alive / MIB)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def physical_cores() -> int:
    """The number of physical cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pairs = set(zip(_cpuinfo("physical id"), _cpuinfo("core id"), strict=False))
    return min(allowed, len(pairs) or allowed)


def _cpuinfo(field: str) -> list[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.split(":", 1)[0].strip() == field]


def machine(device: torch.device, packages: Sequence[str]) -> dict[str, Any]:
    """What the numbers were measured on and with; a package that is not installed has the version None."""
    return {
        "cpu": next(iter(_cpuinfo("model name")), platform.processor() or platform.machine()),
        "cores": physical_cores(),
        "torch threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def plain(value: Any) -> Any:
    """Dataclasses inside dictionaries and lists as plain JSON values."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
