"""Layer selection and the trace it rests on."""

from __future__ import annotations

import awkward
import pytest
import timm
import torch
import torchvision
from narrow_vgg import build_vgg
from torch import nn

from camplug import LayerError, Tape
from camplug.plug import named_layers, select, trace_model


def names(model, selector, x=None):
    layers = named_layers(model)
    seen = None if x is None else trace_model(model, layers, (x,))
    return list(select(model, layers, selector, seen))


@pytest.mark.parametrize(
    ("selector", "want"),
    [
        ("convs", ["conv1", "conv2", "conv3"]),
        ("conv2", ["conv2"]),
        ("conv[13]", ["conv1", "conv3"]),
        ("bn*", ["bn1", "bn2"]),
        (nn.BatchNorm2d, ["bn1", "bn2"]),
        (["conv3", nn.Linear, "bn1"], ["bn1", "conv3", "head"]),
        (lambda name, module: name.endswith("1"), ["conv1", "bn1"]),
    ],
)
def test_selectors(selector, want):
    assert names(awkward.FeatureModule(), selector) == want


def test_globs_go_part_by_part():
    model = torchvision.models.resnet18()
    assert names(model, "layer*") == ["layer1", "layer2", "layer3", "layer4"]
    assert names(model, "layer4.*.conv2") == ["layer4.0.conv2", "layer4.1.conv2"]
    assert names(model, "layer4.**.conv2") == ["layer4.0.conv2", "layer4.1.conv2"]
    assert len(names(model, "**.conv2")) == 8
    assert names(model, "**.downsample.0") == [
        "layer2.0.downsample.0",
        "layer3.0.downsample.0",
        "layer4.0.downsample.0",
    ]


def test_a_module_selects_itself():
    model = awkward.FeatureModule()
    assert names(model, model.bn2) == ["bn2"]
    assert names(model, [model.conv3, model.conv1]) == ["conv1", "conv3"]


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ("conv9", "no layer named 'conv9'; did you mean 'conv"),
        ("nothing.*", "no layer named 'nothing"),
        (nn.Conv3d, "no layer of type Conv3d"),
        (nn.ReLU(), "not a part of this"),
        ([], "empty"),
        (3, "holds 3"),
        (lambda n, m: False, "accepts none"),
        ("last", "watching the model run"),
    ],
)
def test_what_matches_nothing_is_told(selector, says):
    with pytest.raises(LayerError, match=says):
        names(awkward.FeatureModule(), selector)


def test_a_model_without_any_convolution():
    with pytest.raises(LayerError, match="neither a convolution nor a transformer block"):
        Tape(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), "convs")
    with pytest.raises(LayerError, match="feature map"):
        names(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), "last", torch.randn(1, 3, 2, 2))


def build(name):
    if name.startswith("vgg"):
        return build_vgg(name, 1000)
    return torchvision.models.get_model(name, **({"init_weights": False} if name == "googlenet" else {}))


LAST = {
    "resnet18": ("layer4", ["relu", "layer1", "layer2", "layer3", "layer4"]),
    "vgg11_bn": ("features", None),
    "densenet121": ("features", None),
    "mobilenet_v3_small": ("features", None),
    "efficientnet_b0": ("features", None),
    "convnext_tiny": ("features", None),
    "googlenet": ("inception5b", None),
    "squeezenet1_0": ("features", None),
    "shufflenet_v2_x0_5": ("conv5", None),
    "regnet_y_400mf": ("trunk_output", None),
}


@pytest.mark.parametrize("name", LAST)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_last_map_of_torchvision_models(name):
    model = build(name)
    last, stages = LAST[name]
    x = torch.randn(2, 3, 96, 96)
    assert names(model, "last", x) == [last]
    if stages:
        assert names(model, "stages", x) == stages
    assert all(m.training for m in model.modules())


BLOCKS = {
    "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "vgg11": ["features", "features.1", "features.4", "features.9", "features.14", "features.19"],
    "efficientnet_b0": ["features", *(f"features.{i}" for i in range(6))],
    "mobilenet_v3_small": ["features", *(f"features.{i}" for i in range(9))],
}


@pytest.mark.parametrize("name", BLOCKS)
def test_outermost_blocks_of_every_resolution(name):
    """The last block has the resolution of the module around all of them, which stands for it."""
    model = build(name)
    assert names(model, "blocks", torch.randn(2, 3, 96, 96)) == BLOCKS[name]


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("mobilenetv3_small_050", "blocks"),
        ("tf_efficientnet_lite0", "bn2"),
        ("test_resnet", "layer4"),
        ("test_convnext", "norm_pre"),
    ],
)
def test_the_last_map_of_timm_models(name, want):
    model = timm.create_model(name)
    got = names(model, "last", torch.randn(1, 3, 96, 96))[0]
    x = torch.randn(1, 3, 96, 96)
    with Tape(model, got, forward_only=True) as tape:
        model(x)
        features = tape[got]
    with torch.no_grad():
        expected = model.eval().forward_features(x)
    torch.testing.assert_close(features, expected)  # timm's own idea of the last map


def test_a_class_map_is_not_the_last_feature_map():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert names(model, "last", torch.randn(1, 3, 9, 9)) == ["1"]


@pytest.mark.parametrize(
    ("name", "last", "count"),
    [("test_vit", "blocks.5.norm1", 6), ("swin_tiny_patch4_window7_224", "layers.3.blocks.1", 12)],
)
def test_token_layers_of_transformers(name, last, count):
    model = timm.create_model(name)
    found = names(model, "convs")
    assert found[-1] == last
    assert len(found) == count
    side = model.pretrained_cfg["input_size"][-1]
    assert names(model, "last", torch.randn(1, 3, side, side)) == [last]


def test_the_trace_is_known_until_the_model_changes():
    model = awkward.FeatureModule().eval()
    calls = []
    model.conv1.register_forward_hook(lambda *a: calls.append(1))
    x = torch.randn(2, 3, 12, 12)
    assert names(model, "last", x) == ["act"]
    names(model, "last", x)
    assert len(calls) == 1
    model.act = nn.Sequential(nn.ReLU(), nn.Identity())
    assert names(model, "last", x) == ["act"]
    assert len(calls) == 2
    names(model, "last", torch.randn(1, 3, 20, 20))
    assert len(calls) == 3


def test_wrapped_models_keep_their_layer_names():
    model = awkward.FeatureModule()
    wrapped = nn.DataParallel(torch.compile(model, backend="eager"))
    assert Tape(wrapped, "conv2").names == ["conv2"]
    outer = awkward.Wrapped(torch.compile(model, backend="eager"), lambda y: y)
    assert Tape(outer, "inner.conv2").names == ["inner.conv2"]


def test_the_second_name_of_a_shared_module():
    model = nn.Module()
    model.first = nn.Sequential(nn.Conv2d(3, 4, 1))
    model.second = nn.Sequential(model.first[0], nn.Conv2d(4, 4, 1))
    assert names(model, "second.0") == ["first.0"]
    assert names(model, "second.*") == ["first.0", "second.1"]
    assert names(model, ["second.0", "second.1"]) == ["first.0", "second.1"]
    with pytest.raises(LayerError, match=r"no layer named 'third\.0'"):
        names(model, "third.0")
