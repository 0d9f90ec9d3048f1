"""A small classifier with maps of four resolutions, and what trainings on it need."""

from __future__ import annotations

import json

import numpy as np
import torch
from PIL import Image
from torch import nn

from camplug.wsss.data import Folder
from camplug.wsss.seeds import Seed, SeedFolder

CLASSES = ["cat", "dog", "yak"]


def block(inside, outside):
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, stride=2), nn.ReLU())


class Tiny(nn.Module):
    """Strides 2, 4, 8, 16; always the same weights."""

    def __init__(self, num_classes=6, seed=3):
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 48, 48), "mean": (0.5,) * 3, "std": (0.25,) * 3}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.one, self.two, self.three = nn.Sequential(block(3, 8), block(8, 8)), block(8, 16), block(16, 16)
            self.fc = nn.Linear(16, num_classes)

    def forward(self, x):
        return self.fc(self.three(self.two(self.one(x))).mean((2, 3)))


def tiny(seed=3, classes=6):
    return Tiny(classes, seed).eval()


def photos(root, labels, size=(20, 14)):
    """A folder of noise photographs (width, height) with the given class names."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for name in labels:
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / name)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    (root / "labels.json").write_text(json.dumps(labels))
    return Folder(root)


def random_seeds(path, data, seed=0):
    """Seeds of random maps of a data set, float16."""
    rng = np.random.default_rng(seed)
    folder = SeedFolder(path)
    folder.prepare({"explainer": "by hand", "classes": list(data.classes)})
    for i, name in enumerate(data.ids):
        size = (data.photo(i).height, data.photo(i).width)
        maps = rng.random((len(data.labels(i)), *size)).astype(np.float16)
        logits = rng.random(len(data.classes)).astype(np.float32)
        folder.save(name, Seed(maps, data.labels(i), size, logits))
    return folder
