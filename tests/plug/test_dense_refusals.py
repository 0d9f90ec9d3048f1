"""Networks, strides and examples that dense inference refuses, each in one sentence."""

from __future__ import annotations

import re

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from dense_maps import holds_every_value, net, picture
from torch import nn

from camplug import InputError, ModelError
from camplug.plug import dense, overrides

pytestmark = pytest.mark.slow  # a long table of cases


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
