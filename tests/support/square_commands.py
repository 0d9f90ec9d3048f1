"""Models and photographs of a white square on black for the commands that explain photographs."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

OWN = '''
import torch
from torch import nn


class Bright(nn.Module):
    """Two maps, pooled: how far each pixel is above middle grey, and how far below."""

    class_names = ["bright spot", "dark ground", "dark spot"]
    pretrained_cfg = {"input_size": (3, 40, 40), "mean": (0, 0, 0), "std": (1, 1, 1)}

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(2, 3)
        with torch.no_grad():
            self.features[0].weight.copy_(torch.tensor([1.0, -1.0])[:, None, None, None].expand(2, 3, 1, 1) / 3)
            self.features[0].bias.copy_(torch.tensor([-0.5, 0.5]))
            self.fc.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.5]]))
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


class WithoutNames(Bright):
    class_names = None


class Nameless(Bright):
    class_names = pretrained_cfg = None


class Watched(Bright):
    seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[2:]))
        return super().forward(x)


class NoLayer(nn.Sequential):
    pretrained_cfg = {"input_size": (3, 40, 40), "mean": (0, 0, 0), "std": (1, 1, 1), "fixed_input_size": True}

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(4800, 2))
'''

MODULE = "camplug_test_cli_models"

MODEL = f"import:{MODULE}:Bright"

SQUARE = (30, 20, 54, 44)


def photo(square=SQUARE, size=(120, 80)):
    """A white square on black, as an array."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    left, top, right, bottom = square
    pixels[top:bottom, left:right] = 255
    return pixels


def files(place):
    return sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def iou(mask, box):
    truth = torch.zeros_like(mask)
    truth[box[1] : box[3], box[0] : box[2]] = True
    return float((mask & truth).sum() / (mask | truth).sum())


def red_panels(path):
    from scipy import ndimage

    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    parts, _ = ndimage.label((pixels < 250).any(2))
    found = ndimage.find_objects(parts)
    return [s for s in found if (s[0].stop - s[0].start) > 100 and (s[1].stop - s[1].start) > 100]
