"""Return freed memory to the operating system."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def release_free_memory() -> bool:
    """Return memory that is free inside the process to the operating system; return whether there was any.

    The C library of Linux keeps freed tensors for later ones. Images of many sizes leave gaps that fit none of these,
    so that a long job grows by a megabyte per image. Does nothing on other systems.
    """
    trim = _find_trim()
    return trim is not None and bool(trim(0))


@cache
def _find_trim() -> Any:
    """Return glibc's `malloc_trim`; None where there is none (musl, macOS, Windows)."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
