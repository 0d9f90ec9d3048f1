"""A tiny classifier and a folder of photographs, for the tests of seeds."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image
from torch import nn

from camplug.wsss.data import Folder

CONFIG = {"input_size": (3, 40, 40), "mean": (0.5,) * 3, "std": (0.25,) * 3}


class Tiny(nn.Module):
    """Two convolutions and a head; counts how often it runs."""

    pretrained_cfg = CONFIG

    def __init__(self, classes=6):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.fc = nn.Linear(8, classes)
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        return self.fc(self.features(x).relu().mean((2, 3)))


def write_photos(root, labels, sizes=((60, 44),)):
    """Write photographs of noise with these labels by name, whose sizes take turns, and open the folder."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(labels):
        width, height = sizes[i % len(sizes)]
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / name)
    (root / "classes.txt").write_text("a\nb\nc\nd\ne\nf\n")
    (root / "labels.json").write_text(json.dumps(labels))
    return Folder(root)
