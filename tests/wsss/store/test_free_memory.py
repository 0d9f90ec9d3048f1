"""Jobs return freed memory to the system."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest
from texts import Images, prepared

from camplug.wsss.store import free_memory, jobs
from camplug.wsss.store.free_memory import release_free_memory

MIB = 2**20


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    free_memory._find_trim.cache_clear()


def get_resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MIB


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)
def test_gaps_between_allocations_are_returned():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(64 * 1024) for _ in range(1600)]  # 100 MiB, too small to be mapped one by one
    for block in blocks:
        ctypes.memset(block, 1, 64 * 1024)
    for block in blocks[::2] + blocks[1:-1:2]:  # all but the last, which holds the heap's end
        libc.free(block)
    before = get_resident_mib()
    assert release_free_memory()
    assert before - get_resident_mib() > 80
    libc.free(blocks[-1])


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    free_memory._find_trim.cache_clear()
    assert not release_free_memory()


def test_jobs_return_memory_regularly(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jobs, "RELEASE_EVERY", 2)
    monkeypatch.setattr(jobs, "release_free_memory", lambda: calls.append(None))
    folder = prepared(tmp_path / "out")
    jobs.make_results(Images("a", "b", "c", "d", "e"), folder, str)
    assert len(calls) == 2
    jobs.make_results(Images("a", "b", "c", "d", "e"), folder, str)  # all are there
    assert len(calls) == 2
