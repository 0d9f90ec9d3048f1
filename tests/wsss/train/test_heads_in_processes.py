"""IRN and AffinityNet in two processes: these processes make the labels, the heads and the report that one makes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import heads
import pytest
import torch
from commands import refused
from forked import run
from heads import random_seeds, tiny

from camplug.wsss.affinitynet import AffinityNet, AffinityNetHeadSettings
from camplug.wsss.data import Scenes
from camplug.wsss.irn import IRN, IRNHeadSettings
from camplug.wsss.train import Backbone
from camplug.wsss.train.heads import load_heads

SCENES = Scenes(9)
SHORT = ("--epochs", "2", "--batch", "4", "--crop", "32", "--radius", "3", "--crf", "none", "--device", "cpu")
MODEL = "camplug_test_heads"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder with a module of models and the seeds of all scenes but the second."""
    (tmp_path / f"{MODEL}.py").write_text(Path(heads.__file__).read_text())
    folder = random_seeds(tmp_path / "seeds", SCENES)
    folder.get_path(SCENES.ids[1]).unlink()
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def trained(kind, out, processes, *options):
    """The JSON that the first process prints."""
    command = ["train", kind, "seeds", "--data", "scenes:9", "-m", f"import:{MODEL}:Tiny", *SHORT, *options]
    ended = run(*command, "-o", out, "--json", processes=processes)
    codes = [code for code, _, _ in ended]
    assert codes == [1, *[0] * (processes - 1)], ended  # the first process lists images without a seed
    return json.loads(ended[0][1])


def hashes(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in Path(folder).iterdir()}


def started(kind):
    """The heads before their training."""
    torch.manual_seed(0)
    if kind == "irn":
        return IRN(Backbone(tiny()), IRNHeadSettings(radius=3, width=16)).state_dict()
    return AffinityNet(Backbone(tiny()), AffinityNetHeadSettings(radius=3, width=56)).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, file, options",
    [
        ("irn", "irn.pt", ("--width", "16", "--lr", "0.05")),
        ("affinitynet", "affinitynet.pt", ("--width", "56", "--lr", "1", "--momentum", "0.9")),
    ],
)
def test_two_processes_are_like_one(kind, file, options):
    one, two = trained(kind, "one", 1, *options), trained(kind, "two", 2, *options)
    assert two["labels"] == one["labels"] == {"made": 8, "found": 0}
    assert two["broken"] == one["broken"]
    assert [b["image"] for b in two["broken"]] == [SCENES.ids[1]]
    assert two["images"] == one["images"] == 8
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)
    assert hashes("two/labels") == hashes("one/labels")
    first, second, before = load_heads(f"one/{file}").state, load_heads(f"two/{file}").state, started(kind)
    assert first.keys() == second.keys()
    learned = [name for name in first if name in before and first[name].is_floating_point()]
    moved = torch.cat([(first[name] - before[name]).flatten() for name in learned])
    apart = torch.cat([(first[name] - second[name]).flatten() for name in learned])
    assert moved.norm() > 0.1
    assert apart.norm() < 1e-3 * moved.norm()  # sums in another order, no more


def test_what_processes_cannot_share_is_refused_before_any_label(place, monkeypatch):
    command = ("train", "irn", "seeds", "--data", "scenes:9", "-m", f"import:{MODEL}:Tiny", *SHORT)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (
        "RANK=0 and WORLD_SIZE=2 are set, but not by torchrun, by which processes find each other; start them with: "
        "torchrun --nproc-per-node 2 -m camplug ..."
    ) in refused(*command)
    monkeypatch.setattr("camplug.wsss.train.heads_task.wait_for_processes", lambda name: None)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "3 processes cannot share a batch of 4; give a multiple of 3." in refused(*command)
    assert not list((place / "runs").rglob("*.png"))
