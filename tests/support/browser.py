"""The browser of `benchmarks/headless.py`; tests skip where there is none."""

from __future__ import annotations

import pytest
from hosts import load_benchmark

_browser = load_benchmark("headless")
DESKTOP, PHONE = _browser.DESKTOP, _browser.PHONE


def open_page(size=DESKTOP):
    """An empty page, and the list of all addresses that it asks for."""
    pytest.importorskip("playwright", reason="pages are opened by Playwright: pip install -e .[browser]")
    program = _browser.find_browser()
    if program is None:
        pytest.skip(f"no {_browser.NAMES[0]} is installed, and {_browser.PLACE} names none")
    return _browser.open_page(program, size)
