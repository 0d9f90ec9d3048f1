"""Dense inference: values worked by hand, shift-and-stitch, every kind of layer, and explanations."""

from __future__ import annotations

import copy
import functools
import math

import awkward
import pytest
import torch
from dense_maps import dense_and_built, holds_every_value, net, picture, starts
from reference import reference_map, relative_error
from torch import nn
from torch.nn.utils import parametrizations
from wrapped import same

import camplug
from camplug import Tape
from camplug.plug import dense

pytestmark = pytest.mark.slow  # a long table of cases


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
