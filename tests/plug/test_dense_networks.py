"""Dense inference of published networks: every value as built is still there."""

from __future__ import annotations

import copy
import functools

import pytest
import timm
import torchvision
from dense_maps import holds_every_value, lively, map_of, picture, starts
from torch import nn

from camplug.plug import dense

pytestmark = pytest.mark.slow  # a long table of cases


def without_squeeze():
    model = torchvision.models.mobilenet_v3_small()
    for block in model.features[1:-1]:
        for i, layer in enumerate(block.block):
            if type(layer).__name__ == "SqueezeExcitation":  # its global average sees the new values, too
                block.block[i] = nn.Identity()
    return model


def vgg11():
    from torchvision.models.vgg import cfgs, make_layers

    return nn.Sequential(make_layers(cfgs["A"]), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 49, 5))


def googlenet():
    return torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=False)


NETWORKS = {  # how to build it, its last map, pixels per position as built
    "resnet18": (lambda: timm.create_model("resnet18"), "layer4", 32),
    "resnet26d": (lambda: timm.create_model("resnet26d"), "layer4", 32),  # average pooling in the shortcuts
    "tf_efficientnet_lite0": (lambda: timm.create_model("tf_efficientnet_lite0"), "bn2", 32),
    "tf_mobilenetv3_small_minimal": (lambda: timm.create_model("tf_mobilenetv3_small_minimal_100"), "blocks", 32),
    "densenet121": (torchvision.models.densenet121, "features", 32),
    "vgg11": (vgg11, "0", 32),
    "squeezenet1_1": (torchvision.models.squeezenet1_1, "features", 16),
    "mobilenet_v3_small": (without_squeeze, "features", 32),
    "convnext_atto": (lambda: timm.create_model("convnext_atto"), "stages", 32),
    "regnetx_002": (lambda: timm.create_model("regnetx_002"), "s4", 32),
    "shufflenet_v2_x0_5": (torchvision.models.shufflenet_v2_x0_5, "conv5", 32),
    "alexnet": (torchvision.models.alexnet, "features", 32),
    "googlenet": (googlenet, "inception5b", 32),
    "legacy_seresnet18": (lambda: timm.create_model("legacy_seresnet18"), "pool0", 4),  # pooling with ceil_mode
    "nf_resnet26": (lambda: timm.create_model("nf_resnet26"), "final_act", 32),  # standardized weights
    "cs3darknet_focus_s": (lambda: timm.create_model("cs3darknet_focus_s"), "stages.0", 4),  # slices at the start
}


@functools.cache
def network(name):
    return lively(NETWORKS[name][0]())


def on(device, model):
    return model if device.type == "cpu" else copy.deepcopy(model).to(device)


def same_padding_start(n, output_stride, stride=32):
    """TensorFlow pads an even size at the end alone, so the windows of stride 2 sit one position later."""
    start, rate, at = 0, 1, 1
    while at < stride:
        if at >= output_stride:
            start += rate * (n % 2 == 0)
            rate *= 2
        n, at = -(-n // 2), 2 * at
    return start


SAME = "tf_mobilenetv3_small_minimal"

CASES = [(name, (97, 131), 8) for name in NETWORKS if NETWORKS[name][2] > 8]

CASES += [(name, (128, 96), 8) for name in ("tf_efficientnet_lite0", "resnet18", "squeezenet1_1", "alexnet")]

CASES += [(name, (66, 97), 16) for name in (SAME, "tf_efficientnet_lite0", "shufflenet_v2_x0_5", "resnet18", "alexnet")]

CASES += [(name, (64, 65), 4) for name in (SAME, "shufflenet_v2_x0_5", "squeezenet1_1", "regnetx_002", "convnext_atto")]

CASES += [("legacy_seresnet18", (97, 64), 2), ("cs3darknet_focus_s", (66, 50), 2)]

CASES += [(name, (34, 38), 1) for name in ("squeezenet1_1", SAME, "shufflenet_v2_x0_5")]


@pytest.mark.parametrize(("name", "size", "output_stride"), CASES)
def test_every_value_as_built_is_still_there(name, size, output_stride, device):
    _, layer, stride = NETWORKS[name]
    same = name.startswith("tf_")
    start = tuple(same_padding_start(n, output_stride) if same else 0 for n in size)
    fine = holds_every_value(
        on(device, network(name)), picture(*size, device=device), output_stride, stride // output_stride, layer, start
    )
    if same or name in ("resnet18", "resnet26d", "regnetx_002"):
        assert fine.shape[2:] == tuple(-(-n // output_stride) for n in size)


@pytest.mark.parametrize("output_stride", [32, 16, 8, 4])
def test_the_start_with_same_padding_is_the_last_position_on_even_sizes(output_stride):
    last = 32 // output_stride - 1
    assert same_padding_start(64, output_stride) == last
    x = picture(64, 64)
    model = network(SAME)
    fine = holds_every_value(model, x, output_stride, last + 1, "blocks", start=(last, last))
    assert fine.shape[2:] == (64 // output_stride, 64 // output_stride)


def test_a_layout_found_on_the_black_example_holds_for_every_size(device):
    model, x = on(device, network("regnetx_002")), picture(66, 65, device=device)
    built = map_of(model, x, "s4")
    with dense(model, 8):
        assert starts(map_of(model, x, "s4"), built, 4) == [(0, 0)]
        assert map_of(model, picture(64, 64, device=device), "s4").shape[2:] == (8, 8)
    with dense(model):  # 8 is the default
        assert map_of(model, x, "s4").shape[2:] == (9, 9)


def test_squeeze_and_excitation_stays_close_and_finite():
    model, x = lively(torchvision.models.mobilenet_v3_small()), picture(96, 96)
    with dense(model, 8, example=x):
        assert map_of(model, x, "features").shape[2:] == (12, 12)
