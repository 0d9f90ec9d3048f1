"""Stages of networks: which layers, and their maps in the pass that gives the last one."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from trainable import LEARNING, Net

from camplug.errors import InputError
from camplug.wsss.classifier import ClassifierCrops, build_classifier
from camplug.wsss.data import Scenes
from camplug.wsss.rpnet import RPNet, Stage, compute_stage_maps, find_stage_layers

CLASSES = ["cat", "dog"]
pytestmark = pytest.mark.filterwarnings("ignore:.*does not say how it wants its images")


def lite():
    return timm.create_model("tf_efficientnet_lite0", pretrained=False)


def resnet():
    return torchvision.models.resnet18(weights=None)


def sequential():
    layers = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU(inplace=True)) for a, b in ((3, 4), (4, 6), (6, 8))]
    return nn.Sequential(*layers)


class Shared(nn.Module):
    """Calls one ReLU for three maps of different strides."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.three(self.relu(self.two(self.relu(self.one(x))))))


WANTED = {  # the layers of these stages, by reading the networks' code
    "lite": (
        lite,
        {"4": "model.blocks.1", "8": "model.blocks.2", "16": "model.blocks.4", "blocks.3": "model.blocks.3"},
    ),
    "resnet": (resnet, {"4": "model.layer1", "8": "model.layer2", "16": "model.layer3", "layer2.0": "model.layer2.0"}),
    "resnet50": (lambda: torchvision.models.resnet50(weights=None), {"8": "model.layer2", "16": "model.layer3"}),
    "sequential": (sequential, {"2": "model.0", "4": "model.1", "1.0": "model.1.0"}),
    "one relu": (Shared, {"2": ("model.relu", 0), "4": ("model.relu", 1), "two": ("model.two", 0)}),
}


@pytest.fixture(scope="module", params=WANTED)
def known(request):
    build, wanted = WANTED[request.param]
    torch.manual_seed(0)
    wanted = {stage: Stage(*([layer] if isinstance(layer, str) else layer)) for stage, layer in wanted.items()}
    return build_classifier(build(), CLASSES, neck={"kind": "regions", "width": 4}), wanted


def test_layers(known):
    network, wanted = known
    assert find_stage_layers(network.body, list(wanted)) == list(wanted.values())
    assert find_stage_layers(network.body, []) == []


def test_maps_are_those_of_the_layers(known):
    network, wanted = known
    kept = {}
    for layer in {layer for layer, _ in wanted.values()}:
        network.get_submodule(f"body.{layer}").register_forward_hook(
            lambda m, a, out, layer=layer: kept.setdefault(layer, []).append(out.clone())
        )
    x = torch.randn(2, 3, 64, 96, requires_grad=True)
    last, found = compute_stage_maps(network, x, list(wanted.values()))
    assert last.requires_grad
    assert torch.equal(last, network.body(x))
    for (layer, call), each in zip(wanted.values(), found, strict=True):
        assert not each.requires_grad
        assert torch.equal(each, F.interpolate(kept[layer][call], last.shape[2:], mode="bilinear", align_corners=False))


def test_at_a_finer_output_stride():
    """Stages stay those of the network as built, their maps get finer, and every old value is among the new ones."""
    torch.manual_seed(0)
    network = build_classifier(resnet(), CLASSES, output_stride=8, neck={"kind": "regions", "width": 4})
    layers = find_stage_layers(network.body, ["8", "16"])
    assert layers == [("model.layer2", 0), ("model.layer3", 0)]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        last, (two, three) = compute_stage_maps(network, x, layers)
        network.output_stride = None
        coarse, _ = compute_stage_maps(network, x, [])
        kept = {}
        network.body.model.layer2.register_forward_hook(lambda m, a, out: kept.update(two=out))
        network.body.model.layer3.register_forward_hook(lambda m, a, out: kept.update(three=out))
        network.body(x)
    assert last.shape[2:] == two.shape[2:] == three.shape[2:] == (8, 8)
    assert torch.allclose(last[..., ::4, ::4], coarse, atol=1e-5)
    assert torch.allclose(two, kept["two"], atol=1e-5)
    assert torch.allclose(three[..., ::2, ::2], kept["three"], atol=1e-5)


@pytest.mark.parametrize("stride", [None, 8])
@pytest.mark.parametrize("build", [lite, resnet])
def test_a_step_learns(build, stride, device):
    method = RPNet(width=4, stages="last,8,16", scales=(1.0, 0.5))
    network = build_classifier(build(), CLASSES, neck=method.get_neck_settings(), output_stride=stride)
    pictures = ClassifierCrops(Scenes(4, (64, 64), classes=2), crop=64, sides=(64, 64))
    module = method.make_module(network, LEARNING, pictures).train()
    module.log = module.log_dict = lambda *args, **options: None
    items = [method.make_items(pictures)[0, n] for n in range(2)]
    module.to(device)
    batch = type(items[0])(*(torch.stack(p).to(device) for p in zip(*items, strict=True)))
    module.training_step(batch, 0).backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    with torch.no_grad():
        size = network.eval().features(torch.zeros(1, 3, 64, 64, device=device)).shape[2:]
    assert size == ((2, 2) if stride is None else (8, 8))


def test_transformers_have_one_stride_and_named_layers():
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=2, depth=3)
    network = build_classifier(model, CLASSES, neck={"kind": "regions", "width": 4})
    layers = find_stage_layers(network.body, ["blocks.0"])
    assert layers == [("model.blocks.0", 0)]
    last, (first,) = compute_stage_maps(network, torch.randn(1, 3, 224, 224), layers)
    assert first.shape == last.shape == (1, 192, 14, 14)
    with pytest.raises(InputError, match=r"stage '8': the network has no map of that stride \(it has 16\); give one"):
        find_stage_layers(network.body, ["8"])


def test_what_is_refused():
    body = build_classifier(Net(), CLASSES).body
    with pytest.raises(InputError, match=r"stage '0': the network has no map of that stride \(it has 2, 4, 8\)"):
        find_stage_layers(body, ["0"])
    with pytest.raises(InputError, match="stage 'thre': this Net has no layer named 'thre'; did you mean 'three'"):
        find_stage_layers(body, ["thre"])
    with pytest.raises(InputError, match=r"stage 'two\.\*' is 3 layers; give the name of one"):
        find_stage_layers(body, ["two.*"])
    resnets = build_classifier(resnet(), CLASSES).body
    with pytest.raises(InputError, match="stage 'avgpool': the layer puts out no map on the way to the last one"):
        find_stage_layers(resnets, ["avgpool"])
