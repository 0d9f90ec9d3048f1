"""Streams and memory, which only CUDA has. Skipped where there is none.

That maps are right there is for the tests with the fixture `device` to say, run with `--device cuda`.
"""

from __future__ import annotations

import gc
import threading

import awkward
import pytest
import torch
import torchvision
from cases import explainers

import camplug

pytestmark = [
    pytest.mark.usefixtures("device"),  # so that --device cuda selects them
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

EXPLAINERS = explainers("FullyCAM")
CLASSES = [[0, 3], [4]]
LATE = 20_000_000  # clock cycles, some 10 ms: what does not wait for its stream reads what is not there yet


@pytest.fixture
def cuda(device):
    """A CUDA device: that of --device, or the first."""
    chosen = device if device.type == "cuda" else torch.device("cuda")
    with torch.cuda.device(chosen):
        yield chosen


def small(cuda, n=1):
    torch.manual_seed(0)
    model = awkward.FeatureModule().to(cuda, torch.float64)
    return model, [torch.randn(2, 3, 12, 14).to(cuda, torch.float64) for _ in range(n)]


def assert_close(got, want):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


# ---- streams


@pytest.mark.parametrize("name", EXPLAINERS)
def test_an_explanation_waits_for_its_stream(name, cuda):
    """The images come into being late on a stream of their own, and nothing else waits for it."""
    model, (x,) = small(cuda)
    explainer = camplug.create(EXPLAINERS[name], model)
    want = explainer.maps(x, CLASSES)
    stream, late = torch.cuda.Stream(), torch.zeros_like(x)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(LATE)
        late.copy_(x)
        got = explainer.maps(late, CLASSES)
    stream.synchronize()
    assert_close(got, want)


def test_gradients_wait_for_their_stream(cuda):
    """The pull form runs backward in another thread, whose own stream is the default one."""
    model, (x,) = small(cuda)
    want = []
    with camplug.Tape(model, "convs") as tape:
        tape.backward(model(x)[:, 3], lambda layer, a, g: want.append(g.clone()))
    stream, late, got = torch.cuda.Stream(), torch.zeros_like(x), []
    torch.cuda.synchronize()
    with torch.cuda.stream(stream), camplug.Tape(model, "convs") as tape:
        torch.cuda._sleep(LATE)
        late.copy_(x)
        for _, _, gradient in tape.gradients(model(late)[:, 3]):
            got.append(gradient.clone())
            assert torch.cuda.current_stream() == stream
    stream.synchronize()
    assert_close(got, want)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_two_threads_on_two_streams(name, cuda):
    model, xs = small(cuda, 4)
    explainer = camplug.create(EXPLAINERS[name], model)
    alone = [explainer.maps(x, CLASSES) for x in xs]
    torch.cuda.synchronize()
    assert on_streams([lambda x, i: explainer.maps(x, CLASSES)] * 2, xs, alone) == []
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_two_threads_on_two_streams_with_a_network_of_usual_size(cuda):
    torch.manual_seed(0)
    model = torchvision.models.resnet18().double().cuda()
    xs = [torch.randn(2, 3, 48, 48).double().cuda() for _ in range(4)]
    explainer = camplug.FullyCAM(model)
    alone = [[explainer.maps(x, i)] for i, x in enumerate(xs)]
    torch.cuda.synchronize()
    assert on_streams([lambda x, i: [explainer.maps(x, i)]] * 2, xs, alone, atol=1e-7) == []


def on_streams(explain, xs, alone, atol=1e-9):
    """Explain all images in threads, each on a stream of its own; return what went wrong."""
    wrong = []

    def work(maps_of):
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(3):
                    for i, x in enumerate(xs):
                        for a, b in zip(maps_of(x, i), alone[i], strict=True):
                            if not torch.allclose(a, b, rtol=0, atol=atol):
                                wrong.append(i)
            stream.synchronize()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in explain]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


# ---- memory


def allocated():
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


@pytest.mark.parametrize("name", EXPLAINERS)
def test_nothing_stays(name, cuda):
    model, (x,) = small(cuda)
    explainer = camplug.create(EXPLAINERS[name], model)
    explainer.maps(x, CLASSES)  # libraries take their workspaces with the first call
    before = allocated()
    maps = explainer.maps(x, CLASSES)
    held = sum(m.untyped_storage().nbytes() for m in maps)
    assert allocated() - before <= held + 512 * len(maps)  # the maps, in blocks of 512 bytes, and nothing else
    del maps
    assert allocated() == before


@pytest.mark.parametrize(("method", "layers", "limit"), [("gradcam", "layer4", 160), ("fully", "convs", 760)])
def test_peak_memory(method, layers, limit, cuda):
    """Measure ResNet-50 with 8 images, without cuDNN, whose workspaces are as large as it likes."""
    model, x = torchvision.models.resnet50().cuda().eval(), torch.randn(8, 3, 224, 224).cuda()
    explainer = camplug.create(method, model, layers=layers)
    peaks = {}
    for cudnn in (True, False):
        with torch.backends.cudnn.flags(enabled=cudnn, allow_tf32=False):
            explainer.maps(x, 3)
            before = allocated()
            torch.cuda.reset_peak_memory_stats()
            explainer.maps(x, 3)
            torch.cuda.synchronize()
            peaks[cudnn] = (torch.cuda.max_memory_allocated() - before) / 2**20
    print(f"{method}: peak {peaks[False]:.0f} MiB, with cuDNN {peaks[True]:.0f} MiB")
    assert peaks[False] <= limit
