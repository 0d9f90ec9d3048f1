"""Modules of the folder benchmarks, which import each other by name."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"


@contextmanager
def forget_benchmarks():
    """Remove what is imported from the folder inside the block, so that nothing of it stays behind."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
                del sys.modules[name]
