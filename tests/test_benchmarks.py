"""Benchmarks can be imported, their rows exist, and their tables contain what was measured."""

from __future__ import annotations

import importlib

import pytest
from benchmark_modules import FOLDER, forget_benchmarks

import camplug


@pytest.fixture
def benchmarks(monkeypatch):
    """Benchmarks import each other by name; nothing of them stays behind."""
    monkeypatch.syspath_prepend(str(FOLDER))
    with forget_benchmarks():
        yield


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_benchmark_can_be_imported(benchmarks, name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("camplug") or (FOLDER / f"{error.name}.py").exists():
            raise
        pytest.skip(f"{error.name} is not installed")


def test_rows_of_seeds_are_explainers_of_the_package(benchmarks):
    tables = importlib.import_module("seed_rows").TABLES
    rows = [text for name, rows in tables.items() if name != "vit" for _, text in rows]
    assert "Propagate(MultiView(LPCAM(prototypes='prototypes.npz'), scales=(2,), flip=False))" in rows
    model = pytest.importorskip("timm").create_model("tf_efficientnet_lite0", num_classes=20)
    for text in rows:
        if "LPCAM" not in text:  # reads its prototypes when it is made
            camplug.create(text, model)


def test_papers_go_on_with_a_given_start_and_say_so(benchmarks):
    pytest.importorskip("lightning", reason="trainings come with the extra train")
    papers = importlib.import_module("papers")
    args = papers.parsed(["--data", "VOC", "--start", "weights/start.pt", "--rows", "atm_strong", "--dtype", "float32"])
    assert dict(zip(*[iter(papers.given(args))] * 2, strict=True))["--start"] == "weights/start.pt"
    found = {"miou": 46.0, "precision": 60.0, "recall": 62.0, "fdr": 40.0, "train": 47.0}
    rows = [
        {"row": row, "seed": 0, "seconds": 2.0, "cam": {**found, "miou": miou}, "fully": found}
        for row, miou in (("atm_strong", 46.0), ("ordinary", 44.5))
    ]
    machine = {"gpu": None, "cpu": "a CPU", "versions": {"torch": "2"}}
    data = {"command": "", "machine": machine, "epochs": 1, "settings": {"start": str(args.start)}, "rows": rows}
    lines = papers.report(data)
    assert "goes on with start.pt: 1." in lines[2]
    assert [line.split("|")[3].strip() for line in lines[6:8]] == ["44.5", "46.0 (+1.5)"]
