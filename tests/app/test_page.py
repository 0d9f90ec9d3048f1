"""`camplug app` as visitors meet it: the real command, over HTTP and in a headless Chromium."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from browser import PHONE, open_page
from commands import refused
from PIL import Image
from square_commands import MODEL, MODULE, OWN, photo

import camplug
from camplug.app import page as app_page
from camplug.app.page import check_address
from camplug.errors import InputError
from camplug.models import load_model

PATIENCE = 90  # seconds
WATCH = """
import socket
ask = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    with open("hosts.txt", "a") as file:
        print(host, file=file)
    return ask(host, *rest, **more)
socket.getaddrinfo = getaddrinfo
"""


def find_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the model, which also notes the hosts that the server looks up."""
    folder = tmp_path_factory.mktemp("app")
    (folder / f"{MODULE}.py").write_text(OWN)
    (folder / "sitecustomize.py").write_text(WATCH)
    return folder


@pytest.fixture(scope="module")
def model(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(place), *sys.path])
        yield load_model(MODEL)
    sys.modules.pop(MODULE, None)


@pytest.fixture(scope="module")
def address(place):
    pytest.importorskip("gradio", reason="the app needs Gradio: pip install -e .[browser]")
    port = find_port()
    found = os.pathsep.join([str(place), str(Path(camplug.__file__).parents[1])])
    process = subprocess.Popen(
        [sys.executable, "-m", "camplug", "app", "-m", MODEL, "--port", str(port)],
        cwd=place,
        env=os.environ | {"PYTHONPATH": found, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE).close()
                break
            except OSError:
                assert process.poll() is None, process.stdout.read().decode()
                assert time.monotonic() < end, "the app does not answer"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        process.kill()
        process.wait(timeout=PATIENCE)
        process.stdout.close()


def to_png(pixels):
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def fetch(url, data=None, kind="application/json"):
    asked = urllib.request.Request(url, data, {"Content-Type": kind} if data else {})
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
        return answer.read()


def explain(address, pixels, *choices):
    """Overlays of one visitor, by the HTTP interface of the page."""
    line = "camplug"
    head = f'--{line}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
    body = head + to_png(pixels) + f"\r\n--{line}--\r\n".encode()
    (path,) = json.loads(fetch(f"{address}/gradio_api/upload", body, f"multipart/form-data; boundary={line}"))
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    call = f"{address}/gradio_api/call/explain"
    event = json.loads(fetch(call, json.dumps({"data": [file, *choices]}).encode()))["event_id"]
    last = fetch(f"{call}/{event}").decode().strip().split("\n\n")[-1]
    assert last.startswith("event: complete"), last
    values = json.loads(last.partition("data: ")[2])
    (pictures,) = [v for v in values if isinstance(v, list) and v and "image" in v[0]]
    return [(v["caption"], read_pixels(fetch(v["image"]["url"]))) for v in pictures]


def read_pixels(data):
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


@pytest.mark.slow
def test_twenty_visitors_at_once_get_their_own_maps(address, model, place):
    squares = [(4 * i, 3 * i, 4 * i + 24, 3 * i + 20) for i in range(20)]
    methods = (["cam"], ["hirescam", "cam"])

    def visit(i):
        return explain(address, photo(squares[i]), str(i % 3), methods[i % 2], "none", "default", "")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(visit, range(20), timeout=PATIENCE))
    for i, answer in enumerate(answers):
        assert len(answer) == len(methods[i % 2])
        for name, (caption, pixels) in zip(methods[i % 2], answer, strict=True):
            result = camplug.create(name, model).explain(photo(squares[i]), i % 3)
            assert caption == f"{name}, {result.title()}".replace("\n", ": ")
            assert (pixels == np.asarray(result.overlay())).all()
    hosts = set((place / "hosts.txt").read_text().split())
    assert hosts <= {"127.0.0.1", "localhost", "None"}


@pytest.mark.slow
def test_a_visit_in_the_browser(address, model, tmp_path):
    pixels = photo()
    with open_page() as (page, requested):
        page.goto(address)
        upload = page.locator("#photo input[type=file]")
        upload.set_input_files({"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"})
        page.locator("#notes").get_by_text("the photograph is not an image that Pillow can read").wait_for()
        page.get_by_label("Remove Image").click()
        upload.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": to_png(pixels)})
        page.locator("#maps img").nth(1).wait_for()  # the default: two methods, the predicted class
        page.locator("#class input").click()
        page.get_by_role("option", name="dark spot").click()
        page.locator("#explain").click()
        page.get_by_text("gradcam, dark spot").wait_for()
        for k, name in enumerate(("fully", "gradcam")):
            shown = read_pixels(fetch(page.locator("#maps img").nth(k).get_attribute("src")))
            wanted = camplug.create(name, model).explain(pixels, "dark spot")
            assert (shown == np.asarray(wanted.overlay())).all()
        page.get_by_role("radio", name="gradcam").check()
        page.locator("#threshold input[type=number]").fill("0.8")
        page.locator("#threshold input[type=number]").press("Enter")
        page.locator("#boxes input").uncheck()
        wanted = np.asarray(wanted.overlay(contour=0.8, bar=False))
        end = time.monotonic() + PATIENCE
        while True:
            with page.expect_download() as saved:
                page.get_by_text("Save overlay").click()
            saved.value.save_as(tmp_path / "saved.png")
            if (np.asarray(Image.open(tmp_path / "saved.png")) == wanted).all():
                break
            assert time.monotonic() < end, "the saved picture is another one"
        assert saved.value.suggested_filename == "gradcam_dark_spot_overlay.png"
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert [a for a in requested if not a.startswith((address, "data:", "blob:"))] == []


def test_a_taken_port_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 cannot be used"):
            check_address("127.0.0.1", port)
        assert "give another with --port" in refused("app", "--port", port)


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r'pip install "camplug\[app\]"'):
        app_page.make_page(None, "Title")
