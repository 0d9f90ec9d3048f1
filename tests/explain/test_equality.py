"""Every method equals an independent slow reference on ten architectures with random weights."""

from __future__ import annotations

import copy
import functools
import warnings

import pytest
import torch
import torchvision
from narrow_vgg import build_vgg
from reference import FORMULAS, record, reference_cam, reference_map, relative_error
from torch import nn

import camplug

pytestmark = pytest.mark.slow  # a long table of cases

SIZE = {"inception_v3": 139, "googlenet": 96}
LAST = {
    "resnet18": "layer4", "resnet50": "layer4", "vgg16": "features", "densenet121": "features",
    "mobilenet_v3_large": "features", "efficientnet_b0": "features", "convnext_tiny": "features",
    "inception_v3": "Mixed_7c", "googlenet": "inception5b", "tf_efficientnet_lite0": "bn2",
}  # fmt: skip
POOLED = {"densenet121": torch.relu}  # what stands between the last map and the pooling
NO_CAM = ("vgg16", "mobilenet_v3_large", "convnext_tiny")


@functools.cache
def build(name):
    torch.manual_seed(1)
    if name.startswith("tf_"):
        timm = pytest.importorskip("timm")
        model = timm.create_model(name)
    elif name == "vgg16":
        model = build_vgg(name, 1000)
    else:
        extra = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = torchvision.models.get_model(name, **extra)
    # random statistics, so that batch normalisation is not the identity and evidence of both signs exists
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.double().eval()


def on(name, device):
    """The model and its image on a device; a copy there, which ends with the test."""
    model = build(name) if device.type == "cpu" else copy.deepcopy(build(name)).to(device)
    return model, image(name).to(device)


@functools.cache
def image(name):
    side = SIZE.get(name, 72)
    return torch.randn(1, 3, side, side + 8, generator=torch.Generator().manual_seed(2)).double()


@functools.cache
def predicted(name):
    """The class with the largest logit: there the maps have something to show."""
    with torch.no_grad():
        return int(logits(build(name)(image(name))).argmax())


@pytest.mark.slow
@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("method", FORMULAS)
def test_equals_the_slow_reference(name, method, device):
    (model, x), want = on(name, device), predicted(name)
    layers = [LAST[name]]
    if method == "fully":
        layers = with_positions(model, x)
    expected = reference_map(method, model, layers, x, lambda out: logits(out)[:, want])
    got = camplug.create(method, model).maps(x, want)[0]
    assert got.shape == x.shape[2:]
    assert got.device == x.device
    assert got.dtype == torch.float64
    assert expected.max() == 1
    assert relative_error(got, expected) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", LAST)
def test_cam_equals_the_slow_reference_or_is_refused(name, device):
    (model, x), want = on(name, device), predicted(name)
    if name in NO_CAM:
        with pytest.raises(camplug.ModelError, match="global average pooling"):
            camplug.CAM(model).maps(x, want)
        return
    (features, _), *_ = record(model, [LAST[name]], x, lambda out: logits(out)[:, want])[0]
    features = POOLED.get(name, lambda t: t)(features[0])
    weights = [m for m in model.modules() if isinstance(m, nn.Linear)][-1].weight[want]
    assert relative_error(camplug.CAM(model).maps(x, want)[0], reference_cam(features, weights, x.shape[2:])) <= 1e-5


@pytest.mark.parametrize("channel_norm", [True, False])
@pytest.mark.parametrize("size", [(9, 14), (33, 40)])
def test_fully_cam_at_any_size_and_both_norms(channel_norm, size, device):
    model, x = on("resnet18", device)
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    expected = reference_map("fully", model, layers, x, lambda o: o[:, 3], size, channel_norm=channel_norm)
    got = camplug.FullyCAM(model, channel_norm=channel_norm).maps(x, 3, size=size)[0]
    assert relative_error(got, expected) <= 1e-5


@pytest.mark.parametrize("method", FORMULAS)
def test_several_layers_are_each_scaled_to_one_and_added(method, device):
    model, x = on("resnet18", device)
    expected = reference_map(method, model, ["layer2", "layer3.1.conv2", "layer4"], x, lambda o: o[:, 3])
    got = camplug.create(method, model, layers=["layer4", "layer3.1.conv2", "layer2"]).maps(x, 3)[0]
    assert relative_error(got, expected) <= 1e-5


def test_float32_is_close_to_the_float64_reference(device):
    model, x = on("resnet18", device)
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    expected = reference_map("fully", model, layers, x, lambda o: o[:, 3])
    got = camplug.FullyCAM(copy.deepcopy(model).float()).maps(x.float(), 3)[0]
    assert got.dtype == torch.float32
    assert relative_error(got, expected) <= 1e-3  # 1/max(m_k) of nearly dead channels carries float32's noise


def with_positions(model, x):
    """The convolutions that put out a map of more than one position: not those of squeeze-and-excitation."""
    found, hooks = [], []

    def note(name, output):
        if output[0, 0].numel() > 1:
            found.append(name)

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda m, i, o, name=name: note(name, o)))
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


def logits(output):
    return output if isinstance(output, torch.Tensor) else output.logits
