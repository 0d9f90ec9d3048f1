"""Garbage collections that tests for leaks force: many, so each looks at what is new since the last one only."""

from __future__ import annotations

import gc


def collect() -> None:
    """Collect garbage, and leave what survived out of later collections."""
    gc.collect()
    gc.freeze()
