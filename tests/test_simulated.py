"""The simulated device refuses what a GPU refuses, and a sample of the tests that are meant for a GPU passes on it.

The refusals run on whatever `--device` names but the CPU, so that CUDA says whether the simulation is right. Ordinary
runs get to them through a process of its own: a process that has registered the device keeps it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simulated
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def elsewhere(device):
    if device.type == "cpu":
        pytest.skip("the CPU refuses nothing; test_a_sample_passes_on_the_simulated_device runs this")
    return device


MIXED = {
    "a sum": lambda here, there: here + there,
    "a product": torch.mm,
    "in place": lambda here, there: here.mul_(there),
    "in place on the CPU": lambda here, there: there.mul_(here),
    "a list": lambda here, there: torch.cat([here, there]),
    "a condition": lambda here, there: torch.where(here > 0, there, here),
    "a layer": lambda here, there: torch.nn.functional.linear(there, here),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_two_devices_do_not_mix(name, elsewhere):
    here, there = torch.ones(3, 3).to(elsewhere), torch.ones(3, 3)
    with pytest.raises(RuntimeError, match="same device"):
        MIXED[name](here, there)


def test_a_model_and_its_input_on_two_devices_do_not_mix(elsewhere):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 2))
    x = torch.ones(1, 3, 4, 4)
    with pytest.raises(RuntimeError):
        model.to(elsewhere)(x)
    with pytest.raises(RuntimeError):
        model.cpu()(x.to(elsewhere))


def test_numpy_reads_no_tensor_before_it_is_on_the_cpu(elsewhere):
    x = torch.ones(3).to(elsewhere)
    for read in (x.numpy, lambda: np.asarray(x)):
        with pytest.raises((RuntimeError, TypeError)):
            read()
    assert x.cpu().numpy().tolist() == x.tolist() == [1, 1, 1]


def test_a_generator_of_the_cpu_draws_nothing_there(elsewhere):
    generator = torch.Generator().manual_seed(0)
    draws = (
        lambda: torch.randn(3, device=elsewhere, generator=generator),
        lambda: torch.randperm(3, device=elsewhere, generator=generator),
        lambda: torch.empty(3).to(elsewhere).uniform_(generator=generator),
    )
    for draw in draws:
        with pytest.raises(RuntimeError, match="generator"):
            draw()


def test_what_a_gpu_takes_is_taken(elsewhere):
    x = torch.arange(9.0).view(3, 3).to(elsewhere)
    assert (x * torch.tensor(2.0)).device == x.device  # single numbers may come from the CPU
    assert x[torch.tensor([0, 2])].tolist() == x[[0, 2]].tolist() == [[0, 1, 2], [6, 7, 8]]  # and so may an index
    y = torch.zeros(3, 3)
    y.copy_(x)  # and copies are what changes the device
    assert torch.equal(y, x.cpu())
    assert x.half().device == x.new_zeros(2).device == torch.zeros_like(x).device == x.device


def test_values_views_and_gradients_are_right(elsewhere):
    x = torch.randn(2, 3, 8, 8)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(inplace=True), torch.nn.Flatten())
    want = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    model.to(elsewhere)
    got = torch.autograd.grad(model(x.to(elsewhere)).square().sum(), list(model.parameters()))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.cpu(), b)
    here = x.to(elsewhere)
    here[0, 1].view(-1)[:4].zero_()
    assert here[0, 1, 0, :5].tolist()[:4] == [0, 0, 0, 0]
    assert here[0, 1, 0, 4] == x[0, 1, 0, 4]
    with torch.inference_mode():
        assert not here.detach().is_inference()
        assert (here * 2).to("cpu", torch.float64).device.type == "cpu"
    assert (model.double()(x.to(elsewhere, torch.float64))).dtype == torch.float64


SAMPLE = [
    "tests/test_simulated.py",
    "tests/explain/test_device.py::test_maps_equal_those_of_the_cpu",
    "tests/explain/test_device.py::test_a_batch_on_another_device_is_told",
    "tests/explain/test_device.py::test_photographs_from_everywhere",
    "tests/explain/test_device.py::test_gradients_while_the_loop_uses_the_device",
    *(
        f"tests/explain/test_contract.py::test_contract[{case}-{method}]"
        for case in ("plain", "inference_mode", "autocast", "checkpointed", "DataParallel")
        for method in ("cam", "eigencam", "fully", "gradcam++")
    ),
    *(
        f"tests/explain/test_contract_wrappers.py::test_contract[{case}-{wrapper}]"
        for case in ("train mode", "+= after the layer")
        for wrapper in ("classconditional", "compete", "dense", "multiview")
    ),
    "tests/explain/test_contract.py::test_two_threads_get_what_one_thread_gets[fully]",
    "tests/explain/test_waits.py",
    "tests/wsss/train/test_steps.py::test_a_step_waits_for_nothing",
    "tests/wsss/train/test_steps.py::test_a_step_equals_that_of_the_cpu",
    "tests/wsss/irn/test_losses.py",
]


@pytest.mark.slow
def test_a_sample_passes_on_the_simulated_device():
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # xdist's, say
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    run += ["--device", simulated.NAME, *SAMPLE]
    result = subprocess.run(run, cwd=ROOT, env=own, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    last = result.stdout.strip().splitlines()[-1]
    assert int(re.match(r"(\d+) passed", last)[1]) >= len(SAMPLE), last
    assert "skipped" not in last
