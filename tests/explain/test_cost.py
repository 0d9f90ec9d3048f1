"""What an explanation costs, counted and not timed: FLOPs, peak tensor memory, forward and backward passes."""

from __future__ import annotations

import functools

import pytest
import torch
import torchvision
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import camplug


@functools.cache
def resnet50():
    return torchvision.models.resnet50().eval()


def flops(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


def peak_mib(run):
    """Peak of tensor memory above what is alive at the start, from the allocator's own events."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    assert abs(now) < 2**21, "something of this run is still alive"
    return most / 2**20


def test_grad_cam_costs_one_forward_pass():
    x = torch.randn(1, 3, 224, 224)
    assert flops(lambda: camplug.GradCAM(resnet50(), "layer4").maps(x, 3)) <= 8.20


def test_grad_cam_finds_the_last_map_once():
    x = torch.randn(1, 3, 224, 224)
    explainer = camplug.GradCAM(resnet50())
    explainer.maps(x, 3)  # the first call of a model watches it run
    assert flops(lambda: explainer.maps(x, 3)) <= 8.20
    assert flops(lambda: camplug.XGradCAM(resnet50()).maps(x, 3)) <= 8.20  # known to every explainer of the model


def test_fully_cam_costs_a_forward_and_half_a_backward_pass():
    x = torch.randn(1, 3, 224, 224)
    explainer = camplug.FullyCAM(resnet50())
    assert len(explainer.tape().names) == 53
    assert flops(lambda: explainer.maps(x, 3)) <= 16.2


def test_no_weight_gradient_is_ever_computed():
    asked = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution_backward.default:
                asked.append(tuple(args[-1]))
            return func(*args, **(kwargs or {}))

    with Watch():
        camplug.FullyCAM(resnet50()).maps(torch.randn(1, 3, 64, 64), 3)
    assert len(asked) == 52  # all but the first convolution, whose input nobody asks for
    assert set(asked) == {(True, False, False)}
    assert all(p.grad is None for p in resnet50().parameters())


@pytest.mark.slow
def test_memory_of_grad_cam_and_fully_cam_at_batch_8():
    x = torch.randn(8, 3, 224, 224)
    grad, fully = camplug.GradCAM(resnet50(), "layer4"), camplug.FullyCAM(resnet50())
    assert peak_mib(lambda: grad.maps(x, 3)) <= 1.05 * 86
    assert peak_mib(lambda: fully.maps(x, 3)) <= 700


class Counted(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x)


@pytest.mark.parametrize("method", ["gradcam", "fully", "cam", "eigencam"])
def test_twenty_classes_cost_one_forward_pass(method):
    model = Counted(torchvision.models.resnet18()).eval()
    explainer = camplug.create(method, model)
    x = torch.randn(1, 3, 64, 64)
    explainer.maps(x, 0)
    model.calls = 0
    assert explainer.maps(x, [list(range(20))])[0].shape == (20, 64, 64)
    assert model.calls == 1


def test_no_copy_is_made_where_nothing_is_overwritten():
    model = torchvision.models.resnet18().eval()
    passed_on = {}

    def hook(module, inputs, output):
        passed_on[module] = output

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(hook)
    address = torch._C._data_address  # looks without touching: data_ptr() would count as a write
    with camplug.Tape(model, "convs") as tape:
        y = model(torch.randn(1, 3, 64, 64))
        for layer, activation in tape.captures:
            assert address(activation) == address(passed_on[layer.module])
        for layer, activation, _ in tape.gradients(y[:, 0]):
            assert address(activation) == address(passed_on[layer.module])


def test_a_copy_is_made_where_something_is_overwritten():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 2)).eval()
    x = torch.randn(1, 3, 4, 4)
    with camplug.Tape(model, ["0", "1"]) as tape:
        model(x)
        (_, before), (_, after) = tape.captures
        torch.testing.assert_close(before, model[0](x).detach())
        assert before.min() < 0 <= after.min()
