"""A thread that looks for the layers of a model waits while another one runs the model at a finer stride."""

from __future__ import annotations

import threading

import torch
from torch import nn

from camplug import GradCAM
from camplug.plug import dense


def test_layers_are_not_looked_for_while_another_thread_is_dense():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3)).eval()
    x, began, result = torch.randn(1, 3, 32, 32), threading.Event(), []
    before, plain = model(x), GradCAM(model).maps(x, 0)
    model.register_forward_pre_hook(lambda *_: began.set())

    def explain():
        result.append(GradCAM(model).maps(x[:, :, :-8], 0))  # of a new size: the layers are looked for again

    with dense(model, 2):
        began.clear()
        other = threading.Thread(target=explain)
        other.start()
        assert not began.wait(0.2)
    other.join()
    assert torch.equal(model(x), before)
    assert torch.equal(GradCAM(model).maps(x, 0), plain)
    assert torch.equal(result[0], GradCAM(model).maps(x[:, :, :-8], 0))
