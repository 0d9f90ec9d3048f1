"""Headless Chromium by Playwright, for pages that people look at."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PLACE = "CAMPLUG_CHROMIUM"  # environment variable: another browser than that of the path
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PATIENCE = 60_000  # milliseconds


def find_browser() -> str | None:
    """Return the browser's program."""
    return os.environ.get(PLACE) or next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def open_page(program: str, size: dict[str, int]) -> Iterator[tuple[Any, list[str]]]:
    """Open an empty page, and give it with the list of all addresses that it asks for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=PATIENCE)
        try:
            page = browser.new_page(viewport=size)
            page.set_default_timeout(PATIENCE)
            requested: list[str] = []
            page.on("request", lambda request: requested.append(request.url))
            yield page, requested
        finally:
            browser.close()
