"""Two processes train DeepLab like one, also where one of them has fewer labelled pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from forked import run

from camplug.wsss.data import open_data
from camplug.wsss.pseudo import LabelFolder

COMMAND = [
    *("--data", "scenes:9", "--model", "timm:resnet10t", "--num-classes", "6", "--device", "cpu", "--json"),
    *("--epochs", "2", "--batch", "4", "--accumulate", "2", "--crop", "64", "--scales", "0.5,1", "--lr", "0.005"),
    *("--loss", "balanced", "--loss-scales", "1,0.5", "--refinement", "0.5", "--saliency", "contrast"),
    *("--validation", "scenes:5:1"),
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


def trained(labels, out, start, processes):
    ended = run("train", "deeplab", labels, *COMMAND, "--checkpoint", start, "--out", out, processes=processes)
    assert [code for code, _, _ in ended] == [0] * processes, ended
    assert all(not out for _, out, _ in ended[1:])
    return json.loads(ended[0][1])


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    import timm

    torch.manual_seed(0)
    start = tmp_path / "start.pth"
    torch.save(timm.create_model("resnet10t", num_classes=6).state_dict(), start)
    labels = labels_of(tmp_path / "labels")
    losses = [trained(labels, tmp_path / out, start, n)["losses"] for out, n in (("one", 1), ("two", 2))]
    # each counted its own part of 5 images: a weight's last bits may move a few of 46,080 pixels
    assert losses[0]["validation_miou"] == pytest.approx(losses[1]["validation_miou"], abs=0.002)
    one, two = (torch.load(tmp_path / n / "deeplab.pt", weights_only=True)["state"] for n in ("one", "two"))
    before = {f"body.model.{k}": v for k, v in torch.load(start, weights_only=True).items()}
    assert all(torch.equal(one[k], two[k]) for k in one if "running" in k)  # batch norm is fixed
    learned = [k for k in one if k in before and k.endswith("conv1.weight")]
    moved = torch.cat([(one[k] - before[k]).flatten() for k in learned])
    apart = torch.cat([(one[k] - two[k]).flatten() for k in learned])
    assert apart.norm() < 1e-3 * moved.norm()  # sums in another order, no more
    heads = [torch.cat([s[k].flatten() for k in s if k.startswith("head")]) for s in (one, two)]
    assert np.allclose(heads[0], heads[1], atol=1e-4)
