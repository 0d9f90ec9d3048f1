"""The gallery: one HTML file, by its values and as a browser shows it."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from browser import DESKTOP, PHONE, open_page
from PIL import Image

from camplug.explain.explanation import Explanation
from camplug.show.gallery import SIDE, Gallery, encode_picture, shrink_picture


def explain(names, size=(60, 40), logits=(2.0, 0.0)):
    """One map per class: its left half for the first, its right half for the second."""
    maps = torch.zeros(len(names), size[1], size[0])
    for k in range(len(names)):
        maps[k, :, (size[0] // 2) * k : (size[0] // 2) * (k + 1)] = 1
    photo = Image.fromarray(np.full((size[1], size[0], 3), 200, np.uint8))
    return Explanation(photo, maps, list(range(len(names))), names, list(logits)[: len(names)], torch.tensor(logits))


@pytest.fixture(scope="module")
def gallery():
    made = Gallery("Animals <1>")
    made.add("a/one.png", explain(["cat", "dog"]))
    made.add("a/two.png", explain(["cat"]))
    made.add('b/"three".png', explain(["a <b> & 'c'"]))
    made.broken = [("b/four.png", "'b/four.png' is damaged.")]
    return made


class Pictures(HTMLParser):
    """Sources of all images, and class names of the figures around them."""

    def __init__(self, page):
        super().__init__()
        self.found, self.name = [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "figure":
            self.name = given.get("data-class")
        elif tag == "img" and "src" in given:
            self.found.append((self.name, given["src"]))


def decode(source):
    head, _, data = source.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(BytesIO(base64.b64decode(data)))


def test_pictures_are_those_of_the_explanation(gallery):
    pictures = Pictures(gallery.render()).found
    assert [name for name, _ in pictures] == [None, "cat", "dog", None, "cat", None, "a <b> & 'c'"]
    one = explain(["cat", "dog"])
    wanted = [one.image, one.overlay("cat", bar=False), one.overlay("dog", bar=False)]
    for (_, source), picture in zip(pictures, wanted, strict=False):
        assert source == encode_picture(picture)
        difference = np.abs(np.asarray(decode(source)).astype(int) - np.asarray(picture))
        assert difference.mean() < 4  # WebP halves the resolution of colours


def test_style_reaches_the_overlays():
    made = Gallery()
    made.add("one.png", explain(["cat"]), colors="viridis", contour=0.5)
    assert made.items[0].maps[0].source == encode_picture(
        explain(["cat"]).overlay(0, colors="viridis", contour=0.5, bar=False)
    )


def test_classes_are_counted_once_per_photograph(gallery):
    assert gallery.count_classes() == {"cat": 2, "a <b> & 'c'": 1, "dog": 1}
    twice = Gallery()
    twice.add("a", explain(["cat", "cat"]))
    assert twice.count_classes() == {"cat": 1}
    assert [m.probability for m in twice.items[0].maps] == ["88.1% (softmax)", "11.9% (softmax)"]


def test_large_pictures_shrink_in_proportion():
    assert shrink_picture(Image.new("RGB", (2000, 1000))).size == (SIDE, SIDE // 2)
    small = Image.new("RGB", (30, 90))
    assert shrink_picture(small) is small


def test_text_is_escaped_and_nothing_is_loaded(gallery):
    page = gallery.render()
    assert "Animals &lt;1&gt;" in page
    assert "a <b>" not in page
    assert "&#39;b/four.png&#39; is damaged." in page
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"data:image[^\"]*", "", page))


@pytest.mark.slow
def test_browser_filters_and_steps_by_keyboard(gallery, tmp_path):
    (tmp_path / "gallery.html").write_text(gallery.render(), encoding="utf-8")
    with open_page() as (page, requested):
        page.goto((tmp_path / "gallery.html").as_uri())
        for size in (DESKTOP, PHONE):
            page.set_viewport_size(size)
            assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        shown = page.locator(".item:visible .name")
        assert shown.all_inner_texts() == ["a/one.png", "a/two.png", 'b/"three".png']
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert page.locator("#caption").inner_text() == "a/one.png"
        assert page.locator("#pictures figcaption").all_inner_texts() == [
            "photograph",
            "cat 88.1% (softmax)",
            "dog 11.9% (softmax)",
        ]
        page.keyboard.press("ArrowLeft")  # from the first to the last
        assert page.locator("#caption").inner_text() == 'b/"three".png'
        page.keyboard.press("Escape")
        assert not page.locator("#view").is_visible()
        page.select_option("#class", "dog")
        assert shown.all_inner_texts() == ["a/one.png"]
        assert page.locator(".item:visible > img").get_attribute("src") == gallery.items[0].maps[1].source
        page.select_option("#class", "")
        page.fill("#search", "TWO")
        assert shown.all_inner_texts() == ["a/two.png"]
        assert page.locator("#count").inner_text() == "1 of 3"
        assert [a for a in requested if not a.startswith(("data:", "file:"))] == []
