"""A working folder for the tests of `camplug pseudo-labels`."""

from __future__ import annotations

import sys
from pathlib import Path

import heads
import pytest
import torch
from heads import random_seeds
from label_commands import HOLDING, MODEL, MODULE, SCENES

from camplug.wsss.affinitynet import AffinityNet, AffinityNetHeadSettings
from camplug.wsss.affinitynet.checkpoint import save_affinitynet
from camplug.wsss.irn import IRN, IRNHeadSettings
from camplug.wsss.irn.checkpoint import save_irn
from camplug.wsss.train import Backbone


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Seeds and heads, made once."""
    place = tmp_path_factory.mktemp("kept")
    random_seeds(place / "seeds", SCENES)
    backbone = Backbone(heads.tiny())
    torch.manual_seed(1)
    made_with = {"model": MODEL, "checkpoint": None, "num_classes": None}
    save_irn(place / "irn.pt", IRN(backbone, IRNHeadSettings(width=0)), made_with)
    save_affinitynet(place / "affinitynet.pt", AffinityNet(backbone, AffinityNetHeadSettings(width=56)), made_with)
    return place


@pytest.fixture(autouse=True)
def place(kept, tmp_path, monkeypatch):
    """A working folder with seeds, heads and a module of models, and no torchrun around."""
    (tmp_path / f"{MODULE}.py").write_text(Path(heads.__file__).read_text() + HOLDING)
    for name in ("seeds", "irn.pt", "affinitynet.pt"):
        (tmp_path / name).symlink_to(kept / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CAMPLUG_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    sys.modules.pop(MODULE, None)
