"""Pictures of the web page for the docs, in the size of a desktop and of a phone.

pip install -e ".[app]" playwright    # and Chromium
python benchmarks/screenshots.py --out docs/figures
"""

from __future__ import annotations

import argparse
import sys
from io import BytesIO
from pathlib import Path

from headless import DESKTOP, PHONE, find_browser, open_page
from PIL import Image

import camplug
from camplug.app.page import launch_page, make_page
from camplug.app.service import MapService

QUALITY = 85  # of WebP, a quarter of the size of a PNG


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=7870)
    parser.add_argument("--out", type=Path, required=True, help="folder")
    args = parser.parse_args(argv)
    program = find_browser()
    if program is None:
        parser.error("there is no Chromium")
    model = camplug.load_model("demo")
    page = make_page(MapService(lambda prompts: (model, {})), "Where does the demo model look?")
    address = launch_page(page, "127.0.0.1", args.port)
    try:
        for name, size in (("app.webp", DESKTOP), ("app_phone.webp", PHONE)):
            save_picture(take_picture(program, address, size), args.out / name)
    finally:
        page.close(verbose=False)


def take_picture(program: str, address: str, size: dict[str, int]) -> Image.Image:
    """Return the whole page after the sample photograph was chosen."""
    with open_page(program, size) as (page, _):
        page.goto(address)
        page.get_by_role("button", name="Sample photograph").click()
        page.locator("#mask img").wait_for()
        page.wait_for_timeout(1000)  # animations
        return Image.open(BytesIO(page.screenshot(full_page=True))).convert("RGB")


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture, and print its size."""
    picture.save(path, quality=QUALITY, method=6)
    print(f"{path}: {path.stat().st_size // 1000} KB")


if __name__ == "__main__":
    main(sys.argv[1:])
