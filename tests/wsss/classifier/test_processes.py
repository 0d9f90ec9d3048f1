"""Two processes train like one: the same weights, the same precision, one file."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

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


def run(out, start, processes, port=0):
    commands = []
    for rank in range(processes):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "test"}
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        if processes > 1:
            env |= {k: str(v) for k, v in own.items()}
        command = [sys.executable, "-m", "camplug", *COMMAND, "--checkpoint", str(start), "--out", str(out)]
        commands.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=300) for process in commands]
    assert [process.returncode for process in commands] == [0] * processes, said
    return json.loads(said[0][0])


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    start = weights(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = run(tmp_path / "one", start, 1)
    shared = run(tmp_path / "two", start, 2, port)
    assert shared["losses"]["val_map"] == pytest.approx(alone["losses"]["val_map"], abs=1e-3)
    one, two = (torch.load(tmp_path / n / "classifier.pt", weights_only=True)["state"] for n in ("one", "two"))
    before = {f"body.model.{k}": v for k, v in torch.load(start, weights_only=True).items()}
    learned = [k for k in one if k in before and k.endswith("weight")]
    moved = torch.cat([(one[k] - before[k]).flatten() for k in learned])
    apart = torch.cat([(one[k] - two[k]).flatten() for k in learned])
    assert apart.norm() < 1e-3 * moved.norm()  # sums in another order, no more
