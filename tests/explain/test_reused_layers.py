"""A network whose layers share one ReLU module is explained like the same network with a ReLU for each layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import camplug


class Reused(nn.Module):
    """Three convolutions at two resolutions, behind one ReLU module, or behind one each."""

    def __init__(self, shared):
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList([nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3)])
        relu = nn.ReLU()
        self.relus = nn.ModuleList([relu] * 3 if shared else [nn.ReLU() for _ in range(3)])
        self.pool, self.head = nn.MaxPool2d(2), nn.Linear(6, 3)

    def forward(self, x):
        x = self.pool(self.relus[0](self.convs[0](x)))
        x = self.relus[1](self.convs[1](x))
        return self.head(self.relus[2](self.convs[2](x)).mean((2, 3)))


@pytest.mark.parametrize("layers", ["last", "stages"])
@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM", "HiResCAM", "EigenCAM", "ScoreCAM", "SmoothGradCAMPlusPlus"])
def test_one_activation_module_for_all_layers(method, layers):
    x = torch.randn(2, 3, 16, 16)
    shared, own = (getattr(camplug, method)(Reused(s).eval(), layers=layers).maps(x, 1) for s in (True, False))
    torch.testing.assert_close(shared, own)


def test_all_calls_of_a_layer_that_is_named_are_added():
    x = torch.randn(2, 3, 16, 16)
    shared = camplug.GradCAM(Reused(True).eval(), layers="relus.0").maps(x, 1)
    torch.testing.assert_close(shared, camplug.GradCAM(Reused(False).eval(), layers="relus.*").maps(x, 1))


class Encoders(nn.Module):
    """One encoder for two images, side by side."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        self.head = nn.Linear(12, 3)

    def forward(self, a, b):
        return self.head(torch.cat([self.encoder(image).mean((2, 3)) for image in (a, b)], 1))


def test_calls_side_by_side_are_added():
    model, x = Encoders().eval(), torch.randn(2, 3, 12, 12)
    inputs = (camplug.PerImage(x.flip(0)),)
    last, named = (camplug.GradCAM(model, layers=la).maps(x, 1, inputs=inputs) for la in ("last", "encoder"))
    torch.testing.assert_close(last, named)


class Switched(nn.Module):
    """A network that is deeper if an argument says so."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x, deep=False):
        x = self.first(x).relu()
        return self.head((self.second(x).relu() if deep else x).mean((2, 3)))


def test_layers_follow_arguments_that_are_no_tensors():
    x, used = torch.randn(2, 3, 12, 12), camplug.GradCAM(Switched().eval())
    for deep in (False, True, False):
        fresh = camplug.GradCAM(Switched().eval())
        torch.testing.assert_close(*(one.maps(x, 0, inputs={"deep": deep}) for one in (used, fresh)))
