"""Dense inference: every value as built is still there, values worked by hand, and what cannot run so is said."""

from __future__ import annotations

import copy
import functools
import math
import re

import awkward
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from reference import reference_map, relative_error
from torch import nn
from torch.nn.utils import parametrizations
from wrapped import same

import camplug
from camplug import InputError, ModelError, Tape
from camplug.plug import dense, overrides

pytestmark = pytest.mark.slow  # a long table of cases


@pytest.fixture(autouse=True)
def _one_thread(_steady):
    torch.set_num_threads(1)  # on maps this small, two threads mostly wait for each other


def lively(model, seed=0):
    """No weight that networks start at zero with (a residual branch, a layer scale) may hide its branch."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or not parameter.any():
            values = torch.rand(parameter.shape, generator=random)
            parameter.data = values - 0.5 if "bias" in name else values + 0.5
    return model.double().eval()


def net(*layers, device="cpu"):
    return lively(nn.Sequential(*layers)).to(device)


def picture(*size, device="cpu"):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1)).to(device, torch.float64)


@torch.no_grad()
def map_of(model, x, layer=None):
    """What a layer puts out (default: the model), found with a plain hook."""
    kept = []
    handle = (model if layer is None else model.get_submodule(layer)).register_forward_hook(
        lambda module, args, output: kept.append(output)
    )
    assert model(x).isfinite().all()
    handle.remove()
    return kept[-1]


def starts(fine, built, finer):
    """Where the map as built begins in the finer one, every `finer`-th position: all (top, left) that fit to 1e-9."""
    down, across = finer if isinstance(finer, tuple) else (finer, finer)
    found = []
    for top in range(down):
        for left in range(across):
            some = fine[:, :, top::down, left::across][:, :, : built.shape[2], : built.shape[3]]
            if some.shape == built.shape and relative_error(some, built) < 1e-9:
                found.append((top, left))
    return found


def holds_every_value(model, x, output_stride, finer, layer=None, start=(0, 0)):
    built = map_of(model, x, layer)
    with dense(model, output_stride, example=x):
        fine = map_of(model, x, layer)
    assert fine.device == x.device
    for got, was in zip(fine.shape[2:], built.shape[2:], strict=True):
        assert (was - 1) * finer + 1 <= got <= was * finer
    assert starts(fine, built, finer) == [start]
    assert same(map_of(model, x, layer), built)
    return fine


# ---- published networks


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


# ---- worked by hand


def row(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def conv(*weights, **options):
    """A convolution along a row with these weights."""
    layer = nn.Conv2d(1, 1, (1, len(weights)), bias=False, **options).double()
    layer.weight.data = torch.tensor(weights).double().view(1, 1, 1, -1)
    return layer


def along(layer, **options):
    options = {name: (0 if name == "padding" else 1, n) for name, n in options.items()}
    return lambda size, **more: layer((1, size), **options, **more)


AVERAGE = along(nn.AvgPool2d, stride=2)
PADDED_AVERAGE = along(nn.AvgPool2d, stride=2, padding=1)

GOLDEN = {
    # pairs a + 10b; behind it, pairs of every second one a + 1000b
    "convolution": ([conv(1, 10, stride=(1, 2))], row(1, 2, 3, 4, 5, 6), [21, 43, 65], [21, 32, 43, 54, 65]),
    "dilated behind it": (
        [conv(1, 10, stride=(1, 2)), conv(1, 1000)],
        row(1, 2, 3, 4, 5, 6),
        [43021, 65043],
        [43021, 54032, 65043],
    ),
    "maximum": (
        [along(nn.MaxPool2d, stride=2, padding=1)(3)],
        row(3, 1, 4, 1, 5, 9),
        [3, 4, 9],
        [3, 4, 4, 5, 9, 9],
    ),
    "maximum of negatives": (
        [along(nn.MaxPool2d, stride=2, padding=1)(3)],
        row(-3, -1, -4, -1, -5, -9),
        [-1, -1, -1],
        [-1, -1, -1, -1, -1, -5],
    ),
    "average": ([AVERAGE(3)], row(1, 2, 3, 4, 5, 9), [2, 4], [2, 3, 4, 6]),
    "average, padding counts": (
        [PADDED_AVERAGE(3)],
        row(1, 2, 3, 4, 5, 6),
        [1, 3, 5],
        [1, 2, 3, 4, 5, 11 / 3],
    ),
    "average, padding does not count": (
        [PADDED_AVERAGE(3, count_include_pad=False)],
        row(1, 2, 3, 4, 5, 6),
        [1.5, 3, 5],
        [1.5, 2, 3, 4, 5, 5.5],
    ),
    "average, own divisor": (
        [PADDED_AVERAGE(3, divisor_override=2)],
        row(1, 2, 3, 4, 5, 6),
        [1.5, 4.5, 7.5],
        [1.5, 3, 4.5, 6, 7.5, 5.5],
    ),
    # the last window as built is (5, 6), so two more positions are there: (5, 6) and (6)
    "average, ceil_mode": (
        [AVERAGE(3, ceil_mode=True)],
        row(1, 2, 3, 4, 5, 6),
        [2, 4, 5.5],
        [2, 3, 4, 5, 5.5, 6],
    ),
    "reflected border": (  # c + 10b + 100a; behind the border 2 and 5 (of the row), then 40 and 10 positions of it
        [conv(100, 10, 1, stride=(1, 2), padding=(0, 1), padding_mode="reflect")],
        row(1, 2, 3, 4, 5, 6),
        [212, 234, 456],
        [212, 123, 234, 345, 456, 565],
    ),
    "reflected border, dilated": (  # every second position is a row of its own: 1 3 5 and 2 4 6
        [conv(1, stride=(1, 2)), conv(100, 10, 1, padding=(0, 1), padding_mode="reflect")],
        row(1, 2, 3, 4, 5, 6),
        [313, 135, 353],
        [313, 424, 135, 246, 353, 464],
    ),
    "same, even kernel, dilated": (
        [conv(1, stride=(1, 2)), conv(10, 1, padding="same")],
        row(1, 2, 3, 4, 5, 6),
        [13, 35, 50],
        [13, 24, 35, 46, 50, 60],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_rows(name, device):
    layers, x, built, fine = GOLDEN[name]
    model, x = copy.deepcopy(nn.Sequential(*layers)).to(device).eval(), x.to(device)
    close = functools.partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
    close(model(x).cpu(), row(*built))
    with dense(model, 1, example=x):
        close(model(x)[..., : len(fine)].cpu(), row(*fine))
    close(model(x).cpu(), row(*built))


def stitched(model, x, stride):
    """Shift-and-stitch (Sermanet et al., OverFeat, 2014): run as built on every shift of the image and interleave."""
    with torch.no_grad():
        parts = {(p, q): model(x[:, :, p:, q:]) for p in range(stride) for q in range(stride)}
    height = sum(parts[p, 0].shape[2] for p in range(stride))
    width = sum(parts[0, q].shape[3] for q in range(stride))
    out = x.new_zeros(1, parts[0, 0].shape[1], height, width)
    for (p, q), part in parts.items():
        out[:, :, p::stride, q::stride] = part
    return out


UNPADDED = {
    "convolutions": (lambda: [nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 2, 2)], 4),
    "stride 4": (lambda: [nn.Conv2d(3, 4, 5, 4), nn.Conv2d(4, 2, 3)], 4),
    "maximum": (lambda: [nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.MaxPool2d(3, 2)], 4),
    "average": (lambda: [nn.Conv2d(3, 4, 3, 2), nn.AvgPool2d(2), nn.Conv2d(4, 4, 2), nn.AvgPool2d(3, 1)], 4),
    "own divisor": (lambda: [nn.AvgPool2d(2, divisor_override=3), nn.AvgPool2d(3, 2, divisor_override=1)], 4),
    "dilated as built": (lambda: [nn.Conv2d(3, 4, 3, 2, dilation=2), nn.Conv2d(4, 4, 3, dilation=3)], 2),
    "maximum, dilated as built": (lambda: [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, dilation=2), nn.Conv2d(3, 2, 2)], 4),
    "groups": (lambda: [nn.Conv2d(3, 6, 3, 2, groups=3), nn.Conv2d(6, 6, 3, 2, groups=6), nn.Conv2d(6, 2, 1)], 4),
    "valid": (lambda: [nn.Conv2d(3, 4, 3, 2, padding="valid"), nn.Conv2d(4, 4, 3, padding="valid")], 2),
}


@pytest.mark.parametrize("name", UNPADDED)
@pytest.mark.parametrize("size", [(32, 32), (33, 39)])
def test_without_padding_it_is_shift_and_stitch(name, size, device):
    layers, stride = UNPADDED[name]
    model, x = net(*layers(), device=device), picture(*size, device=device)
    want = stitched(model, x, stride)
    with torch.no_grad(), dense(model, 1, example=x):
        got = model(x)
    assert relative_error(got[:, :, : want.shape[2], : want.shape[3]], want) < 1e-12
    assert 0 <= got.shape[2] - want.shape[2] < stride
    assert 0 <= got.shape[3] - want.shape[3] < stride


POOLS = [
    functools.partial(nn.AvgPool2d, count_include_pad=counts, divisor_override=divisor)
    for counts in (True, False)
    for divisor in (None, 5)
]


@pytest.mark.parametrize("pool", [nn.MaxPool2d, *POOLS])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [(32, 31), (29, 30)])
def test_poolings_of_every_kind(pool, ceil, padding, size, device):
    def one(*window):
        return pool(*window, padding, ceil_mode=ceil)

    x = picture(*size, device=device)
    assert starts(*dense_and_built(net(one(3, 2), one(3, 2), one(3, 1), device=device), x), 4) == [(0, 0)]
    assert starts(*dense_and_built(net(one(2, 2), one(3, 3), device=device), x), 6) == [(0, 0)]
    fine, built = dense_and_built(net(nn.MaxPool2d(2), one(2, 1), one((3, 2), (1, 2)), device=device), x)
    assert starts(fine, built, (2, 4)) == [(0, 0)]


@torch.no_grad()
def dense_and_built(model, x, output_stride=1):
    built = model(x)
    with dense(model, output_stride, example=x):
        return model(x), built


CONVOLUTIONS = {
    "groups": {"kernel_size": 3, "groups": 2, "padding": 1},
    "dilation": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "much padding": {"kernel_size": 3, "padding": 3},
    "even kernel": {"kernel_size": 4, "padding": 1, "stride": 2},
    "strided shortcut": {"kernel_size": 1, "stride": 2},
    "rectangular": {"kernel_size": (3, 5), "stride": (2, 2), "padding": (1, 2)},
    "same": {"kernel_size": 3, "padding": "same"},
    "same, even": {"kernel_size": (2, 4), "padding": "same"},
    "reflect": {"kernel_size": 5, "padding": 2, "padding_mode": "reflect"},
    "reflect, strided": {"kernel_size": 4, "stride": 2, "padding": 1, "padding_mode": "reflect"},
    "reflect, same": {"kernel_size": 4, "padding": "same", "padding_mode": "reflect"},
    "replicate": {"kernel_size": 3, "padding": 1, "padding_mode": "replicate"},
    "replicate, strided": {"kernel_size": 3, "stride": 2, "padding": 1, "padding_mode": "replicate"},
    "circular": {"kernel_size": 3, "padding": 2, "padding_mode": "circular"},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("size", [(32, 33), (30, 31)])
def test_convolutions_of_every_kind(name, size, device):
    def one():
        return nn.Conv2d(4, 4, **CONVOLUTIONS[name])

    strided = CONVOLUTIONS[name].get("stride", 1) != 1
    model = net(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), one(), nn.Conv2d(4, 4, 3, 2, 1), one(), device=device)
    holds_every_value(model, picture(*size, device=device), 1, 16 if strided else 4)
    model = net(nn.Conv2d(3, 4, 3, 2, 1), one(), nn.ReLU(), one(), device=device)
    holds_every_value(model, picture(*size, device=device), 2, 4 if strided else 1)


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed, device):
    random = torch.Generator().manual_seed(seed)

    def pick(*choices):
        return choices[torch.randint(len(choices), (), generator=random)]

    def layer():
        kernel, stride = pick(1, 2, 3, 4, 5), pick(1, 1, 2)
        padding = pick(0, kernel // 2)
        kind = pick("conv", "conv", "max", "average")
        if kind == "conv":
            return nn.Conv2d(3, 3, kernel, stride, padding, groups=pick(1, 3), dilation=pick(1, 1, 2))
        return (nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(kernel, stride, padding, ceil_mode=pick(False, True))

    layers = [nn.Conv2d(3, 3, 3, 2, 1), *(layer() for _ in range(4))]
    stride = math.prod(m.stride if isinstance(m.stride, int) else m.stride[0] for m in layers)
    model, x = net(*layers, device=device), picture(pick(61, 64, 75), pick(62, 67, 80), device=device)
    for output_stride in (1, 2, 4):
        fine, built = dense_and_built(model, x, output_stride)
        assert starts(fine, built, max(1, stride // output_stride))[:1] == [(0, 0)]


def test_partial_strides():
    """Of a stride of 4, a stride of 2 is left, and the next layer is dilated by 2."""
    model, x = net(nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 3, 1, 1), nn.MaxPool2d(2)), picture(33, 48)
    with dense(model, 2, example=x):
        assert [(m.stride, getattr(m, "dilation", 1)) for m in model[:2]] == [((2, 2), (1, 1)), ((1, 1), (2, 2))]
    holds_every_value(model, x, 2, 4)
    holds_every_value(model, x, 4, 2)


@pytest.mark.parametrize("head", [nn.AvgPool2d(7), nn.AvgPool2d(7, stride=1), nn.MaxPool2d(7), nn.AdaptiveAvgPool2d(1)])
def test_a_pooling_over_the_whole_map_covers_the_whole_dense_map(head, device):
    body = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)]
    model, x = net(*body, head, nn.Flatten(), nn.Linear(4, 5), device=device), picture(28, 28, device=device)
    fine = holds_every_value(model, x, 1, 4, layer="2")
    assert fine.shape[2:] == (28, 28)
    pooled = fine.amax((2, 3)) if isinstance(head, nn.MaxPool2d) else fine.mean((2, 3))
    with torch.no_grad(), dense(model, 1, example=x):
        torch.testing.assert_close(model(x), model[-1](pooled))


def test_the_own_divisor_of_a_pooling_over_the_whole_map(device):
    model, x = (
        net(nn.Conv2d(3, 4, 1, 2), nn.AvgPool2d(7, divisor_override=7), device=device),
        torch.ones(1, 3, 14, 14).to(device, torch.float64),
    )
    fine, built = dense_and_built(model, x)
    assert relative_error(fine[0, :, 0, 0], built[0, :, 0, 0]) < 1e-12  # of a constant map 7 times its value


def test_the_last_pooling_of_a_small_image_is_no_head():
    """32 pixels leave VGG a single position; the plan made with them must not pool a larger image away."""
    body = [layer for _ in range(5) for layer in (nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2))]
    model = net(*body)
    assert dense_and_built(model, picture(32, 32), 8)[0].shape[2:] == (4, 4)
    holds_every_value(model, picture(96, 64), 8, 4)


def test_parametrized_convolutions(device):
    strided, plain = (parametrizations.weight_norm(nn.Conv2d(3, 3, 3, s, 1)) for s in (2, 1))
    holds_every_value(
        net(nn.Conv2d(3, 3, 3, 2, 1), strided, plain, device=device), picture(33, 32, device=device), 1, 4
    )


def test_numbers_of_other_types(device):
    model, x = (
        net(nn.Conv2d(3, 4, 3, 2, 1), nn.AvgPool2d(3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1), device=device),
        picture(32, 32, device=device),
    )
    want, _ = dense_and_built(model, x)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        got, _ = dense_and_built(copy.deepcopy(model).to(dtype), x.to(dtype))
        assert got.dtype == dtype
        assert relative_error(got, want) < tolerance


# ---- nothing to do


@pytest.mark.parametrize("output_stride", [4, 8, 64])
def test_a_network_that_is_as_fine_already_is_left_as_it_is(output_stride, device):
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(2), nn.AvgPool2d(7), nn.Flatten(), nn.Linear(4, 5)]
    model, x = net(*layers, device=device), picture(28, 28, device=device)
    y, before = model(x), [dict(m.__dict__) for m in model.modules()]
    with dense(model, output_stride, example=x) as given:
        assert given is model
        assert [m.__dict__ for m in model.modules()] == before
        assert same(model(x), y)


# ---- explanations of a dense network


@pytest.mark.parametrize("method", ["fully", "gradcam"])
def test_maps_equal_those_of_a_network_that_was_written_a_trous(method, device):
    model, x = (
        awkward.FeatureModule().to(device, torch.float64).eval(),
        torch.randn(1, 3, 12, 12).to(device, torch.float64),
    )
    written = copy.deepcopy(model)
    written.conv2.stride = (1, 1)
    written.conv3.dilation = written.conv3.padding = (2, 2)
    names = ["conv1", "conv2", "conv3"] if method == "fully" else ["act"]
    want = reference_map(method, written, names, x, lambda y: y[:, 3])
    explainer = camplug.create(method, model)
    with dense(model, 1, example=x):
        got = explainer.maps(x, 3)[0]
        grad = x.clone().requires_grad_()
        (at_image,) = torch.autograd.grad(model(grad)[0, 3], grad)
    assert relative_error(got, want) < 1e-9
    plain = x.clone().requires_grad_()
    assert relative_error(at_image, torch.autograd.grad(written(plain)[0, 3], plain)[0]) < 1e-12
    as_built = explainer.maps(x, 3)[0]
    assert relative_error(as_built, reference_map(method, model, names, x, lambda y: y[:, 3])) < 1e-9
    assert relative_error(as_built, want) > 1e-3


@pytest.mark.parametrize("selector", ["stages", "last", "convs"])
@pytest.mark.parametrize("inside_first", [False, True])
def test_selectors_name_the_same_layers(selector, inside_first):
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)]
    model, x = net(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)), picture(32, 32)
    want = {"stages": ["1", "3", "5"], "last": ["5"], "convs": ["0", "2", "4"]}[selector]

    def names(size):
        with Tape(model, selector) as tape:
            model(x)
            assert {a.shape[2] for la, a in tape.captures if str(la) in ("4", "5")} == {size}
            return [str(la) for la, _ in tape.captures]

    for inside in (inside_first, not inside_first):
        if inside:
            with dense(model, 1, example=x):
                assert names(32) == want
        else:
            assert names(4) == want


# ---- what cannot be made dense is said


class Twice(nn.Module):
    """Two strided convolutions and a third; what happens around them is `how(model, x)`."""

    def __init__(self, how, **more):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 3, 3, 1, 1)
        for name, module in more.items():
            setattr(self, name, module)
        self.how = how

    def forward(self, x):
        return self.how(self, x)


class Blur(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("taps", torch.tensor([1.0, 2, 1]).outer(torch.tensor([1.0, 2, 1])).expand(3, 1, 3, 3) / 16)

    def forward(self, x):
        return F.conv2d(x, self.taps, stride=2, padding=1, groups=3)


class OwnPool(nn.MaxPool2d):
    def forward(self, x):
        return super().forward(x)


class Deaf(nn.Conv2d):
    """A convolution that knows no dilation."""

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, self.stride, 1)


class SamePadded(nn.Conv2d):
    """TensorFlow's padding, as timm writes it."""

    def forward(self, x):
        sides = []
        for n, k, s, d in zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            sides = [total // 2, total - total // 2, *sides]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride, 0, self.dilation)


def small_vit():
    return timm.create_model("test_vit")


def small_swin():
    sizes = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1)}
    return timm.create_model("swin_tiny_patch4_window7_224", **sizes)


def deform(m, x):
    x = m.b(m.a(x))
    return m.deform(x, x.new_zeros(1, 18, *x.shape[2:]))


REFUSED = {
    "vit": (small_vit, 8, "transformer"),
    "swin": (small_swin, 2, "transformer"),
    "blur": (lambda: Twice(lambda m, x: m.c(m.blur(m.b(m.a(x)))), blur=Blur()), 2, "blur"),
    "blur at the end": (lambda: Twice(lambda m, x: m.blur(m.b(m.a(x))).mean((2, 3)), blur=Blur()), 4, "blur"),
    "slices": (lambda: Twice(lambda m, x: m.c(m.b(m.a(x))[:, :, ::2, ::2])), 2, "slice"),
    "slices at the end": (lambda: Twice(lambda m, x: m.b(m.a(x))[:, :, ::2, ::2].mean((2, 3))), 2, "slice"),
    "a cropped map": (lambda: Twice(lambda m, x: m.c(m.b(m.a(x))[:, :, 1:, 1:])), 2, "slice"),
    "F.max_pool2d": (lambda: Twice(lambda m, x: m.b(F.max_pool2d(m.a(x), 2))), 2, "max_pool2d"),
    "F.max_pool2d at the end": (lambda: Twice(lambda m, x: F.max_pool2d(m.b(m.a(x)), 2).mean((2, 3))), 2, "max_pool2d"),
    "F.max_pool2d of stride 1": (lambda: Twice(lambda m, x: F.max_pool2d(m.b(m.a(x)), 3, 1, 1)), 1, "max_pool2d"),
    "F.avg_pool2d beside a layer": (lambda: Twice(lambda m, x: m.b(m.a(x)) + F.avg_pool2d(m.a(x), 2)), 2, "size"),
    "F.conv2d": (lambda: Twice(lambda m, x: F.conv2d(m.b(m.a(x)), m.c.weight, padding=1)), 2, "convolution"),
    "F.unfold": (lambda: Twice(lambda m, x: F.unfold(m.b(m.a(x)), 3)), 2, "im2col"),
    "linear on a flattened map": (lambda: net(nn.Conv2d(3, 2, 4, 4), nn.Flatten(), nn.Linear(128, 5)), 2, "shapes"),
    "fusion": (
        lambda: Twice(lambda m, x: m.a(x) + m.up(m.b(m.a(x))), up=nn.Upsample(scale_factor=2)),
        2,
        "size of tensor",
    ),
    "decoder": (lambda: Twice(lambda m, x: m.c(m.up(m.b(m.a(x)))), up=nn.Upsample(scale_factor=8)), 2, "larger|follow"),
    "decoder by function": (lambda: Twice(lambda m, x: m.c(F.interpolate(m.b(m.a(x)), scale_factor=2))), 2, "'c'"),
    "transposed": (
        lambda: Twice(lambda m, x: m.c(m.up(m.b(m.a(x)))), up=nn.ConvTranspose2d(3, 3, 2, 2)),
        2,
        "convolution in .* up",
    ),
    "reused": (lambda: Twice(lambda m, x: m.c(m.b(m.b(m.a(x))))), 2, "'b' runs on maps of several resolutions"),
    "reused pooling": (
        lambda: Twice(lambda m, x: m.pool(m.c(m.pool(m.c(x)))), pool=nn.MaxPool2d(2)),
        2,
        "several resolutions",
    ),
    "a pooling of its own": (lambda: net(nn.Conv2d(3, 3, 3, 2, 1), OwnPool(2)), 2, "OwnPool"),
    "a convolution without dilation": (lambda: net(nn.Conv2d(3, 3, 2, 2), Deaf(3, 3, 3, 1, 1)), 1, "Deaf"),
    "other padding beside": (
        lambda: Twice(lambda m, x: m.pool(m.a(x)) + m.same(m.a(x)), pool=nn.AvgPool2d(2), same=SamePadded(3, 3, 3, 2)),
        2,
        "SamePadded.* starts elsewhere",
    ),
    "deformable": (lambda: Twice(deform, deform=torchvision.ops.DeformConv2d(3, 3, 3, padding=1)), 2, "deform_conv2d"),
    "sizes that coincide": (
        lambda: net(
            nn.Conv2d(3, 3, 3, 4, 1), nn.Conv2d(3, 3, 3, 4, 1), nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 3, 3, 2, 1)
        ),
        8,
        r"several strides that are all 1x1; give example= with a larger image",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name):
    make, output_stride, why = REFUSED[name]
    model, x = make().double().eval(), picture(16, 16) if name == "sizes that coincide" else picture(32, 32)
    if name not in ("vit", "swin"):
        y = model(x)
    with pytest.raises(ModelError) as caught, dense(model, output_stride, example=x):
        pytest.fail("it was let in")
    said = str(caught.value)
    assert re.search(why, said), said
    assert "\n" not in said
    assert said.startswith(("this ", "on an example")), said
    assert said.endswith(".")
    assert overrides._held == []
    if name not in ("vit", "swin"):
        assert torch.equal(model(x), y)


def test_what_was_refused_runs_where_nothing_has_to_change():
    for name in (
        "blur",
        "slices",
        "F.max_pool2d",
        "F.conv2d",
        "fusion",
        "reused",
        "a pooling of its own",
        "deformable",
    ):
        model, x = REFUSED[name][0]().double().eval(), picture(32, 32)
        y = model(x)
        with dense(model, 32, example=x):
            assert torch.equal(model(x), y)


def test_functions_before_the_dense_layers_are_no_matter():
    model = Twice(lambda m, x: m.c(m.b(m.a(F.max_pool2d(x[:, :, ::2, ::2], 3, 1, 1)))))
    holds_every_value(model.double().eval(), picture(64, 62), 4, 2)


def test_a_convolution_of_its_own_kind_that_follows(device):
    model = net(nn.Conv2d(3, 3, 3, 2, 1), SamePadded(3, 3, 3, 2), SamePadded(3, 3, 5, 1), device=device)
    holds_every_value(model, picture(64, 64, device=device), 2, 2, start=(1, 1))
    holds_every_value(model, picture(62, 64, device=device), 2, 2, start=(0, 1))


@pytest.mark.parametrize("output_stride", [0, -8, 3, 12, 2.5, 8.0, True, "8", None])
def test_output_strides_that_are_none(output_stride):
    with (
        pytest.raises(InputError, match=r"output_stride=.*powers of two"),
        dense(net(nn.Conv2d(3, 3, 3)), output_stride),
    ):
        pass


def test_examples_that_are_none():
    model = net(nn.Conv2d(3, 3, 3, 2), nn.Conv2d(3, 3, 3, 2))
    for example in (torch.zeros(3, 32, 32), torch.zeros(0, 3, 32, 32), [1], "cat.jpg"):
        with pytest.raises(InputError, match=r"example=.*\[N,C,H,W\]"), dense(model, 1, example=example):
            pass
    for example in (torch.zeros(2, 4, 32, 32).double(), torch.zeros(2, 3, 2, 2).double(), picture(32, 32).half()):
        with (
            pytest.raises(ModelError, match=r"does not take the example .*; give example="),
            dense(model, 1, example=example),
        ):
            pass
    fixed = net(nn.Conv2d(3, 2, 4, 2), nn.Conv2d(2, 2, 15), nn.Flatten(), nn.Linear(2, 5))
    with pytest.raises(ModelError, match=r"does not take the example \[1, 3, 224, 224\]"), dense(fixed, 1):
        pass
