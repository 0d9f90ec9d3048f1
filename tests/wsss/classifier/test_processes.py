"""Two processes train like one: the same weights, the same precision, one file."""

from __future__ import annotations

import json

import pytest
import torch
from forked import run

COMMAND = [
    *("train", "classifier", "--data", "scenes:18", "--model", "timm:resnet10t", "--num-classes", "6"),
    *("--epochs", "2", "--batch", "8", "--crop", "64", "--sides", "64,64", "--lr", "0.02", "--cut", "none"),
    *("--validation", "scenes:7", "--seed", "3", "--device", "cpu", "--json"),
]


def weights(tmp_path):
    """ImageNet weights cannot be had everywhere."""
    import timm

    torch.manual_seed(0)
    file = tmp_path / "start.pth"
    torch.save(timm.create_model("resnet10t", num_classes=6).state_dict(), file)
    return file


def trained(out, start, processes):
    ended = run(*COMMAND, "--checkpoint", start, "--out", out, processes=processes)
    assert [code for code, _, _ in ended] == [0] * processes, ended
    return json.loads(ended[0][1])


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    start = weights(tmp_path)
    alone = trained(tmp_path / "one", start, 1)
    shared = trained(tmp_path / "two", start, 2)
    assert shared["losses"]["val_map"] == pytest.approx(alone["losses"]["val_map"], abs=1e-3)
    one, two = (torch.load(tmp_path / n / "classifier.pt", weights_only=True)["state"] for n in ("one", "two"))
    before = {f"body.model.{k}": v for k, v in torch.load(start, weights_only=True).items()}
    learned = [k for k in one if k in before and k.endswith("weight")]
    moved = torch.cat([(one[k] - before[k]).flatten() for k in learned])
    apart = torch.cat([(one[k] - two[k]).flatten() for k in learned])
    assert apart.norm() < 1e-3 * moved.norm()  # sums in another order, no more
