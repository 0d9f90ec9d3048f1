"""Two processes train DeepLab like one, also where one of them has fewer labelled pixels."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from camplug.wsss.data import open_data
from camplug.wsss.pseudo import LabelFolder

COMMAND = [
    *("--data", "scenes:9", "--model", "timm:resnet10t", "--num-classes", "6", "--device", "cpu", "--json"),
    *("--epochs", "2", "--batch", "4", "--accumulate", "2", "--crop", "64", "--scales", "0.5,1", "--lr", "0.005"),
    *("--loss", "balanced", "--loss-scales", "1,0.5", "--refinement", "0.5", "--saliency", "contrast"),
]


def labels_of(path):
    """Scenes' masks, of which some images have next to nothing."""
    data, folder = open_data("scenes:9", None), LabelFolder(path)
    folder.prepare({"classes": list(data.classes)})
    for i, name in enumerate(data.ids):
        mask = data.mask(i)
        mask[: (10 * i) % 96] = 255
        if i % 3 == 0:
            mask[mask > 0] = 255
        folder.save(name, mask)
    return path


def run(labels, out, start, processes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    commands = []
    for rank in range(processes):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "test"}
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        if processes > 1:
            env |= {k: str(v) for k, v in own.items()}
        given = [str(labels), *COMMAND, "--checkpoint", str(start), "--out", str(out)]
        command = [sys.executable, "-m", "camplug", "train", "deeplab", *given]
        commands.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=300) for process in commands]
    assert [process.returncode for process in commands] == [0] * processes, said
    assert all(not out for out, _ in said[1:])
    return json.loads(said[0][0])


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    import timm

    torch.manual_seed(0)
    start = tmp_path / "start.pth"
    torch.save(timm.create_model("resnet10t", num_classes=6).state_dict(), start)
    labels = labels_of(tmp_path / "labels")
    run(labels, tmp_path / "one", start, 1)
    run(labels, tmp_path / "two", start, 2)
    one, two = (torch.load(tmp_path / n / "deeplab.pt", weights_only=True)["state"] for n in ("one", "two"))
    before = {f"body.model.{k}": v for k, v in torch.load(start, weights_only=True).items()}
    assert all(torch.equal(one[k], two[k]) for k in one if "running" in k)  # batch norm is fixed
    learned = [k for k in one if k in before and k.endswith("conv1.weight")]
    moved = torch.cat([(one[k] - before[k]).flatten() for k in learned])
    apart = torch.cat([(one[k] - two[k]).flatten() for k in learned])
    assert apart.norm() < 1e-3 * moved.norm()  # sums in another order, no more
    heads = [torch.cat([s[k].flatten() for k in s if k.startswith("head")]) for s in (one, two)]
    assert np.allclose(heads[0], heads[1], atol=1e-4)
