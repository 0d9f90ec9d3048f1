"""The same on a GPU: values, memory, threads, devices. Skipped where there is none."""

from __future__ import annotations

import threading

import awkward
import pytest
import torch
import torchvision

import camplug

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def _exact():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("method", camplug.list_methods())
@pytest.mark.parametrize("kind", ["FeatureModule", "InPlace", "Reused", "Checkpointed", "TrainOnly"])
def test_maps_equal_those_of_the_cpu(method, kind):
    torch.manual_seed(0)
    model = getattr(awkward, kind)().double()
    x = torch.randn(3, 3, 12, 14).double()
    want = camplug.create(method, model).maps(x, [[0, 3], [1], [4]])
    model.cuda()
    got = camplug.create(method, model).maps(x.cuda(), [[0, 3], [1], [4]])
    for a, b in zip(want, got, strict=True):
        assert b.is_cuda
        torch.testing.assert_close(b.cpu(), a, rtol=1e-8, atol=1e-8)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    "line",
    [
        "MultiView(FullyCAM, (1.0, 1.5))",
        "IterativeErasing(FullyCAM, max_iter=3)",
        "SplitUnite(FullyCAM, smallest=4, zoom=1.5)",
        "ClassConditional(FullyCAM, split={'smallest': 4}, erase={'max_iter': 2})",
        "Compete(FullyCAM, judge=CAM)",
        "Dense(FullyCAM, 1)",
    ],
)
def test_wrappers_equal_those_of_the_cpu(line):
    torch.manual_seed(0)
    model, x = awkward.FeatureModule().double(), torch.randn(4, 3, 12, 14).double()
    classes = [[0, 3], [], [4], [1, 2, 0]]
    want = camplug.create(line, model).maps(x, classes)
    got = camplug.create(line, model.cuda()).maps(x.cuda(), classes)
    for a, b in zip(want, got, strict=True):
        assert b.is_cuda
        torch.testing.assert_close(b.cpu().to(a.dtype), a, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_formats(dtype, autocast):
    torch.manual_seed(0)
    model, x = awkward.FeatureModule().cuda().eval(), torch.randn(2, 3, 12, 14).cuda()
    want = camplug.FullyCAM(model).maps(x, 3)
    if autocast:
        with torch.autocast("cuda", dtype):
            got = camplug.FullyCAM(model).maps(x, 3)
    else:
        got = camplug.FullyCAM(model.to(dtype)).maps(x.to(dtype), 3)
    assert got.dtype == torch.float32
    assert (got - want).abs().max() < 0.15


def test_the_generator_form_does_not_deadlock_with_work_in_the_loop():
    model, x = torchvision.models.resnet18().cuda().eval(), torch.randn(2, 3, 64, 64).cuda()
    other = torch.nn.Linear(4, 4).cuda()
    with camplug.Tape(model, "convs") as tape:
        count = 0
        for _ in tape.gradients(model(x)[:, 0]):
            other(torch.randn(2, 4).cuda()).sum().backward()
            count += 1
    assert count == 20


def test_memory_is_as_on_the_cpu_and_nothing_stays():
    model = torchvision.models.resnet50().cuda().eval()
    x = torch.randn(8, 3, 224, 224).cuda()
    for explainer, limit in ((camplug.GradCAM(model, "layer4"), 160), (camplug.FullyCAM(model), 760)):
        explainer.maps(x, 3)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        maps = explainer.maps(x, 3)
        torch.cuda.synchronize()
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
        print(f"{type(explainer).__name__}: peak {peak:.0f} MiB")
        assert peak <= limit  # convolution workspaces of cuDNN included
        del maps
        assert torch.cuda.memory_allocated() == before


def test_two_threads():
    model = torchvision.models.resnet18().double().cuda()
    xs = [torch.randn(2, 3, 48, 48).double().cuda() for _ in range(4)]
    explainer = camplug.FullyCAM(model)
    alone = [explainer.maps(x, i) for i, x in enumerate(xs)]
    wrong = []

    def work():
        for _ in range(5):
            for i, x in enumerate(xs):
                if not torch.allclose(explainer.maps(x, i), alone[i], rtol=0, atol=1e-7):
                    wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
    assert all(p.requires_grad for p in model.parameters())


def test_a_batch_on_the_wrong_device_is_told():
    model = awkward.FeatureModule().cuda()
    with pytest.raises(camplug.InputError, match="move one of them"):
        camplug.GradCAM(model).maps(torch.randn(1, 3, 12, 12), 0)


def test_explain_moves_the_photograph_to_the_model():
    import numpy as np

    model = awkward.FeatureModule().cuda()
    photo = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    with pytest.warns(UserWarning, match="ImageNet"):
        result = camplug.FullyCAM(model).explain(photo, 2)
    assert result.maps.shape == (1, 40, 60)
    assert result.maps.device.type == "cpu"
