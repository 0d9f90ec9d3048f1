"""The same on every device: the CPU's maps, number formats, memory layouts, photographs, and what is refused.

With `--device cpu` both sides are the CPU; `--device simulated` and `--device cuda` are what this file is for.
"""

from __future__ import annotations

import copy

import awkward
import numpy as np
import pytest
import torch
from cases import CLASS, WRAPPERS, autocast, explainers
from PIL import Image

import camplug
from camplug.explain.registry import get_wrapper

pytestmark = pytest.mark.slow  # a long table of cases

FULLY, LAYER = explainers("FullyCAM"), explainers("LayerCAM")
HALF = [name for name in LAYER if name != "reciprocam"]  # its scores differ in digits that half precision has not
FORMATS = {torch.float16: 0.002, torch.bfloat16: 0.01}  # mean difference: twice what the CPU's own rounding makes
# CUDA's bicubic kernel has its weights in float32, whatever the images' format
ATOL = {"cpu": 1e-8, "simulated": 1e-8, "cuda": 1e-6}
# differences of scores, thresholds and factors lose digits in half precision
NOISY = {"scorecam", "ablationcam", "occlusion", "rise", "fem", "dff"}
JUMPY = {"iterativeerasing", "classconditional"}  # a position beside a threshold may fall on the other side


def small(*size):
    torch.manual_seed(0)
    return awkward.FeatureModule().eval(), torch.randn(*size)


def moved(model, *where):
    return copy.deepcopy(model).to(*where)


def test_every_wrapper_is_here():
    assert sorted(WRAPPERS) == [n for n in camplug.list_wrappers() if not get_wrapper(n).needs_attention]


@pytest.mark.parametrize("name", FULLY)
def test_maps_equal_those_of_the_cpu(name, device):
    model, x = (t.double() for t in small(4, 3, 12, 14))
    classes = [[0, 3], [], [4], [1, 2, 0]]
    want = camplug.create(FULLY[name], model).run(x, classes, (9, 17))
    x = x.to(device)
    got = camplug.create(FULLY[name], moved(model, device)).run(x, classes, (9, 17))
    assert got.targets == want.targets
    assert got.logits.device == x.device
    torch.testing.assert_close(got.logits.cpu(), want.logits, rtol=0, atol=1e-9)
    for a, b in zip(got.maps, want.maps, strict=True):
        assert a.device == x.device
        torch.testing.assert_close(a.cpu(), b, rtol=0, atol=ATOL[device.type])


@pytest.mark.parametrize("name", FULLY)
def test_the_predicted_class_equals_that_of_the_cpu(name, device):
    model, x = (t.double() for t in small(3, 3, 12, 14))
    want = camplug.create(FULLY[name], model).maps(x)
    got = camplug.create(FULLY[name], moved(model, device)).maps(x.to(device))
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=ATOL[device.type])


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("narrow", ["model", "autocast"])
@pytest.mark.parametrize("dtype", FORMATS)
def test_half_formats(name, dtype, narrow, layout, device):
    model, x = small(2, 3, 24, 28)
    if narrow == "model":
        model, x = model.to(dtype), x.to(dtype)
    classes = [[CLASS], [1, 0]]
    want = camplug.create(LAYER[name], moved(model, torch.float64)).maps(x.double(), classes)
    model, x = model.to(device, memory_format=layout), x.to(device, memory_format=layout)
    explainer = camplug.create(LAYER[name], model)
    with autocast(device, dtype) if narrow == "autocast" else torch.no_grad():
        got = explainer.maps(x, classes)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        assert a.device == x.device
        assert a.amin() >= 0
        assert (a.amax((1, 2)) == 1).all()
        assert (a.cpu() - b).abs().mean() <= (0.1 if name in NOISY else 0.05 if name in JUMPY else FORMATS[dtype])


def test_autocast_is_at_work(device):
    """Or the test above would show nothing."""
    model, x = (t.to(device) for t in small(2, 3, 12, 14))
    for dtype in FORMATS:
        with autocast(device, dtype):
            assert model(x).dtype == dtype


@pytest.mark.parametrize("name", FULLY)
def test_single_precision_in_both_layouts(name, device):
    model, x = small(2, 3, 24, 28)
    want = camplug.create(FULLY[name], moved(model, torch.float64)).maps(x.double(), CLASS)
    for layout in (torch.contiguous_format, torch.channels_last):
        on_device = moved(model, device).to(memory_format=layout)
        got = camplug.create(FULLY[name], on_device).maps(x.to(device, memory_format=layout), CLASS)
        assert got.dtype == torch.float32
        assert (got.cpu() - want).abs().mean() <= 1e-4


@pytest.mark.parametrize("name", FULLY)
def test_a_batch_on_another_device_is_told(name, device):
    model, x = small(2, 3, 12, 14)
    explainer = camplug.create(FULLY[name], model.to(device))
    other = "meta" if device.type == "cpu" else "cpu"
    says = rf"^the images are on {other} and the model is on {x.to(device).device}; move one of them\.$"
    for classes in (CLASS, None, [[CLASS, 1], [0]]):
        with pytest.raises(camplug.InputError, match=says):
            explainer.maps(x.to(other), classes)


# ---- photographs


def photograph():
    return np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


@pytest.mark.filterwarnings("ignore:.*ImageNet")
@pytest.mark.parametrize("name", FULLY)
def test_a_photograph_is_explained_as_on_the_cpu(name, device):
    model, _ = small(1)
    model.double()
    want = camplug.create(FULLY[name], model, preprocess=normalised).explain(photograph(), [2, 0])
    got = camplug.create(FULLY[name], moved(model, device), preprocess=normalised).explain(photograph(), [2, 0])
    assert got.maps.shape == (2, 40, 60)
    assert got.maps.device.type == got.logits.device.type == "cpu"
    torch.testing.assert_close(got.maps, want.maps, rtol=0, atol=1e-6)
    torch.testing.assert_close(got.logits, want.logits, rtol=0, atol=1e-6)
    assert got.scores == pytest.approx(want.scores)
    assert np.abs(np.asarray(got.overlay(), float) - np.asarray(want.overlay(), float)).max() <= 1


def normalised(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).double() / 127.5 - 1


@pytest.mark.filterwarnings("ignore:.*ImageNet")
def test_photographs_from_everywhere(device, tmp_path):
    """Files, arrays, tensors of the CPU and of the device; the model's device is found."""
    model, _ = small(1)
    explainer = camplug.FullyCAM(model.to(device))
    pixels = photograph()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    raw = torch.from_numpy(pixels.copy())
    same = explainer.explain([tmp_path / "a.png", Image.fromarray(pixels), pixels, raw, raw.to(device)], 2)
    assert all(torch.allclose(one.maps, same[0].maps, atol=1e-5) for one in same)
    x = torch.randn(3, 20, 30)
    first, second = (explainer.explain(t, 2) for t in (x, x.to(device)))
    torch.testing.assert_close(first.maps, second.maps, rtol=0, atol=1e-5)
    assert first.maps.device.type == "cpu"


# ---- the tape


def test_gradients_while_the_loop_uses_the_device(device):
    """Backward waits in a thread of its own; other passes of the loop's thread do not disturb it, nor it them."""
    model, x = (t.to(device, torch.float64) for t in small(2, 3, 12, 14))
    other, y = torch.nn.Linear(4, 4).to(device), torch.randn(2, 4).to(device)
    want = {}
    with camplug.Tape(model, "convs") as tape:
        tape.backward(model(x)[:, CLASS], lambda layer, a, g: want.update({str(layer): (a.clone(), g.clone())}))
    got = {}
    with camplug.Tape(model, "convs") as tape:
        for layer, activation, gradient in tape.gradients(model(x)[:, CLASS]):
            other(y).sum().backward()
            got[str(layer)] = (activation.clone(), gradient.clone())
    assert list(got) == ["conv3", "conv2", "conv1"]
    for name, pair in got.items():
        for a, b in zip(pair, want[name], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    once = torch.autograd.grad(other(y).sum(), other.weight)[0]
    torch.testing.assert_close(other.weight.grad, 3 * once)
    assert all(p.grad is None for p in model.parameters())
