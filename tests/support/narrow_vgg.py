"""torchvision's VGG with a narrow head: the published one has 120 million weights, which take most of a test's time."""

from __future__ import annotations

import torch
import torchvision
from torch import nn
from torchvision.models.vgg import VGG, cfgs, make_layers

LAYERS = {"vgg11": "A", "vgg16": "D"}


def build_vgg(name: str, classes: int) -> VGG:
    """Build a VGG, such as "vgg11" or "vgg11_bn", with random weights."""
    with torch.device("meta"):
        model: VGG = torchvision.models.get_model(name)
    kind = name.removesuffix("_bn")
    model.features = make_layers(cfgs[LAYERS[kind]], batch_norm=kind != name)
    model.classifier = nn.Sequential(nn.Linear(512 * 7 * 7, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, classes))
    return model
