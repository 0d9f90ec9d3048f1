"""A small folder of data that tests edit, and a small network in a module of its own."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "yak")
MODEL = "import:stale_net:Net"
NET = """
import torch
from torch import nn


class Net(nn.Module):
    pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3}

    def __init__(self, num_classes=3):
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1))
        self.fc = nn.Linear(6, num_classes)

    def forward(self, x):
        return self.fc(self.features(x).relu().mean((2, 3)))
"""


def write_data(root, seed=0, count=4):
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(root / "images" / f"s{i}.png")
        Image.fromarray(rng.integers(0, 4, (24, 32), dtype=np.uint8)).save(root / "masks" / f"s{i}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    write_labels(root, {f"s{i}.png": [CLASSES[(i + seed) % 3]] for i in range(count)})


def write_labels(root, labels):
    (root / "labels.json").write_text(json.dumps(labels))


def relabel(root, name, labels):
    known = json.loads((root / "labels.json").read_text())
    write_labels(root, {**known, name: labels})
