"""Headless Chromium by Playwright, for pages that people look at; tests skip where there is none."""

from __future__ import annotations

import contextlib
import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PLACE = "CAMPLUG_CHROMIUM"  # environment variable: another browser than that of the path
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PATIENCE = 60_000  # milliseconds


def find_browser():
    """The browser's program; the test is skipped without it, or without Playwright."""
    pytest.importorskip("playwright", reason="pages are opened by Playwright: pip install playwright")
    program = os.environ.get(PLACE) or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no {NAMES[0]} is installed, and {PLACE} names none")
    return program


@contextlib.contextmanager
def open_page(size=DESKTOP):
    """An empty page, and the list of all addresses that it asks for."""
    program = find_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=PATIENCE)
        try:
            page = browser.new_page(viewport=size)
            page.set_default_timeout(PATIENCE)
            requested = []
            page.on("request", lambda request: requested.append(request.url))
            yield page, requested
        finally:
            browser.close()
