"""The report as text: what is escaped, listed and left out."""

from __future__ import annotations

import base64

import pytest
from browser import DESKTOP, PHONE, open_page
from PIL import Image

from camplug.wsss.recipe.report_formats import MOST_BROKEN, format_html, format_markdown
from camplug.wsss.recipe.report_pictures import ImageRow, Panel


def make_report(broken=0):
    stage = {"stage": "seeds train", "kind": "seeds", "finished": True, "seconds": 90.0, "images": 3, "bytes": 2e6}
    stage |= {
        "processes": 1,
        "losses": {"loss": 0.5},
        "labels": None,
        "folder": None,
        "learned_from": {},
        "settings": {},
    }
    stage["broken"] = [{"image": f"a{i}", "error": "x < y & z."} for i in range(broken)]
    later = {**stage, "stage": "labels | train", "kind": "labels", "finished": False, "broken": []}
    return {
        "recipe": "mine",
        "title": "Maps <b> & labels",
        "finished": False,
        "seconds": 90.0,
        "data": {"train": {"data": "voc:<here>", "split": None}},
        "scores": [],
        "classifier": {},
        "network": None,
        "next": [],
        "summary": {"made": ["Maps <of> it."], "quality": [], "look_at": ["a", "b"]},
        "stages": [stage, later],
        "pictures": [{"list": "train"}],
        "settings": {"title": "<i>"},
        "versions": {"camplug": "0.1", "torch": "2"},
    }


def test_html_is_escaped_and_whole(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"picture")
    panels = [Panel("photo", file), Panel("labels", file), Panel("truth", file)]
    row = ImageRow("name <1>", panels, [("<cat>", "#ff3333")], ["cat"], {"cat": 0.913})
    page = format_html(make_report(broken=1), [row], ["cat"])
    assert page.startswith("<!DOCTYPE html>")
    assert page.endswith("</html>\n")
    assert "<title>Maps &lt;b&gt; &amp; labels</title>" in page
    assert '<p class="note">Recipe &#39;mine&#39;: 1 of 2 stages finished, 1.5 min. The run is not complete' in page
    assert "<td>voc:&lt;here&gt;</td>" in page
    assert "<p>seeds train: a0: x &lt; y &amp; z.</p>" in page
    assert page.count(f'src="data:image/jpeg;base64,{base64.b64encode(b"picture").decode()}"') == 3
    assert 'alt="truth of name &lt;1&gt;"' in page
    assert "<h2>1 images through all stages</h2>" in page
    assert page.index("<p>Maps &lt;of&gt; it.</p>") < page.index("<li>b</li>") < page.index("through all stages")
    assert "Labelled cat; the classifier sees cat (91 %)." in page
    assert '<i style="background:#ff3333"></i>&lt;cat&gt;</span>' in page
    pair = page[page.index('<div class="pair">') :]
    assert pair.count("<figure>") == 2  # the last result and the truth
    assert '<a href="report.json">all figures</a>' in page
    assert page.count("<table>") == page.count("</table>") == 2
    assert "<b>" not in page


def test_markdown_and_long_lists_of_broken_images():
    text = format_markdown(make_report(broken=MOST_BROKEN + 7))
    assert text.startswith("# Maps <b> & labels\n")
    assert "## What to look at\n\n- a\n- b\n" in text
    assert "| labels \\| train |  | to be run |  |  |  |" in text
    assert "| seeds train | 3 | 1.5 min | 2.0 | 1 | loss 0.5000 |" in text
    assert text.count("x < y & z.") == MOST_BROKEN
    assert "... and 7 more, in report.json" in text
    assert "None." in format_markdown(make_report())


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_the_screen_and_shows_truth_beside_the_result(size, tmp_path):
    file = tmp_path / "a.jpg"
    Image.new("RGB", (320, 240), "red").save(file)
    titles = ("photo", "seeds", "maps", "labels", "prediction", "truth")
    row = ImageRow("a" * 90, [Panel(title, file) for title in titles], [("cat", "#ff3333")], ["cat"], None)
    (tmp_path / "report.html").write_text(format_html(make_report(), [row], ["cat"]), encoding="utf-8")
    with open_page(size) as (page, requested):
        page.goto((tmp_path / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        boxes = [figure.bounding_box() for figure in page.query_selector_all("figure")]
        assert page.evaluate("[...document.images].every(i => i.naturalWidth === 320)")
    assert [address for address in requested if not address.startswith(("data:", "file:"))] == []
    assert boxes[-1]["y"] == boxes[-2]["y"]
    assert boxes[-1]["x"] > boxes[-2]["x"]
    assert len({box["y"] for box in boxes}) == (1 if size is DESKTOP else 3)
