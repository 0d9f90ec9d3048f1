"""A model that sees a white square on black, such photographs, and explanations that must follow the square."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from camplug import GradCAM
from camplug.images.preprocess import Preprocess


class Bright(nn.Module):
    """Two maps, pooled: how far each pixel is above middle grey ("bright"), and how far below ("dark")."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2, 3)
        with torch.no_grad():
            self.features[0].weight.copy_(torch.tensor([1.0, -1.0])[:, None, None, None].expand(2, 3, 1, 1) / 3)
            self.features[0].bias.copy_(torch.tensor([-0.5, 0.5]))
            self.fc.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
            self.fc.bias.zero_()
        self.class_names = ["bright spot", "dark ground", "neither"]
        self.batches = []
        self.eval()

    def forward(self, x):
        self.batches.append(tuple(x.shape))
        return self.fc(self.pool(self.features(x)).flatten(1))


RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

KEPT = Preprocess((40, 40), **RAW)

SQUEEZED = Preprocess((48, 48), **RAW, keep_aspect=False)

BRIGHT, DARK, NEITHER = 0, 1, 2


def photo(width=120, height=80, square=(30, 20, 54, 44)):
    """A white square (left, top, right, bottom) on black."""
    pixels = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = square
    pixels[top:bottom, left:right] = 255
    return pixels


def grad_cam(preprocess=KEPT, model=None, **options):
    return GradCAM(Bright() if model is None else model, "features", preprocess=preprocess, **options)


def assert_follows(explanation, square, k=0, overlap=0.8):
    """The k-th map peaks inside of the square, its mask is the square, and far from it there is nothing."""
    heat = explanation.maps[k]
    assert tuple(heat.shape) == (explanation.image.height, explanation.image.width)
    left, top, right, bottom = square
    y, x = divmod(int(heat.argmax()), heat.shape[1])
    assert (left <= x < right, top <= y < bottom) == (True, True), (x, y)
    truth = torch.zeros_like(heat, dtype=torch.bool)
    truth[top:bottom, left:right] = True
    mask = explanation.mask()[k]
    assert (mask & truth).sum() / (mask | truth).sum() > overlap
    margin = 6
    far = torch.ones_like(truth)
    far[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = False
    assert float(heat[far].max()) < 0.02
    assert float(heat.max()) == 1
