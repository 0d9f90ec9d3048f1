"""Rounding moves no map of Fully-CAM, unless a ReLU's input lies within rounding of 0 and its gate flips."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

import camplug


def gates(model, x):
    """The signs of what all ReLUs put out, [N, ...] each."""
    found = []
    hooks = [m.register_forward_hook(lambda *_: found.append(_[2] > 0)) for m in model.modules() if type(m) is nn.ReLU]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_float32_is_float64_where_no_gate_flips(seed, device):
    """A flipped gate switches gradients on or off, in every library; the map of that image alone moves."""
    torch.manual_seed(seed)
    model = torchvision.models.resnet50().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    x = torch.randn(4, 3, 96, 96)
    exact = copy.deepcopy(model).double()
    classes = exact(x.double()).argmax(1).tolist()
    want, open_gates = camplug.FullyCAM(exact).maps(x.double(), classes), gates(exact, x.double())
    model, x = model.to(device), x.to(device)
    fully = camplug.FullyCAM(model)
    same = []
    for i, c in enumerate(classes):
        alone = x[i : i + 1]
        same.append(all(torch.equal(a.cpu()[0], b[i]) for a, b in zip(gates(model, alone), open_gates, strict=True)))
        difference = float((fully.maps(alone, c).cpu() - want[i]).abs().max())
        assert difference <= (1e-4 if same[-1] else 0.02)
    assert any(same)
