"""Feature maps of a classifier: the layers' own, at any size, and the classifier stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from heads import Tiny, tiny
from torch import nn

from camplug.errors import LayerError, ModelError
from camplug.images.preprocess import Preprocess
from camplug.wsss.train import Backbone, pad_to_multiple


def test_what_is_filled_up_repeats_the_edge():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    y = pad_to_multiple(x)
    assert y.shape == (1, 1, 32, 32)
    assert torch.equal(y[..., :3, :4], x)
    assert (y[0, 0, 3:, :4] == x[0, 0, -1]).all()
    assert (y[0, 0, :3, 4:] == x[0, 0, :, -1:]).all()
    assert (y[0, 0, 3:, 4:] == 11).all()
    assert pad_to_multiple(torch.zeros(2, 3, 64, 33)).shape == (2, 3, 64, 64)
    whole = torch.zeros(1, 3, 64, 32)
    assert torch.equal(pad_to_multiple(whole), whole)


def test_maps_are_those_of_the_layers(device):
    model = tiny().to(device)
    backbone = Backbone(model, ["three", "one.0", "two", "one"])
    assert backbone.names == ["one.0", "one", "two", "three"]
    assert backbone.channels == [8, 8, 16, 16]
    assert backbone.strides == [2, 4, 8, 16]
    x = torch.randn(2, 3, 64, 96).to(device)
    maps = backbone(x)
    first = model.one[0](x)
    expected = [first, model.one[1](first)]
    expected += [model.two(expected[-1])]
    expected += [model.three(expected[-1])]
    for made, wanted in zip(maps, expected, strict=True):
        assert torch.equal(made, wanted)
        assert not made.requires_grad


def test_stages_are_the_default():
    assert Backbone(tiny()).names == ["one.0", "one", "two", "three"]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 1), (50, 37), (32, 64), (95, 97)])
def test_any_size(size, device):
    backbone = Backbone(tiny())
    x = torch.randn(1, 3, *size).to(device)  # the model follows
    maps = backbone(x)
    whole = backbone(pad_to_multiple(x))
    for made, wanted, stride in zip(maps, whole, backbone.strides, strict=True):
        assert torch.equal(made, wanted)
        assert [side * stride for side in made.shape[-2:]] == [-(-side // 32) * 32 for side in size]


def test_the_model_is_left_as_it_is():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1)
    )
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model[0].weight.requires_grad_(False)
    backbone = Backbone(model, [nn.Conv2d])
    one, other = (backbone(torch.ones(1, 3, 32, 32) * 2) for _ in range(2))
    assert torch.equal(one[1], other[1])  # in evaluation mode: no dropout
    assert all(m.training for m in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_it_is_no_part_of_a_network():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = Backbone(tiny())

    assert not list(Network().parameters())
    assert not Network().state_dict()


def test_normalised(device):
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 5).to(device)
    made = Backbone(tiny()).normalize(pixels)
    assert made.shape == (2, 3, 4, 5)
    np.testing.assert_allclose(made[0, :, 0, 0].cpu(), [-2, (128 / 255 - 0.5) / 0.25, 2], atol=1e-6)
    own = Backbone(tiny(), preprocess=Preprocess(mean=(0, 0, 0), std=(1, 0.5, 2)))
    np.testing.assert_allclose(own.normalize(pixels)[0, :, 0, 0].cpu(), [0, 256 / 255, 0.5], rtol=1e-6)


def test_half_precision(device):
    backbone = Backbone(tiny().to(torch.bfloat16))
    maps = backbone(torch.randn(1, 3, 32, 32).to(device))
    assert {m.dtype for m in maps} == {torch.float32}


def test_fingerprints_tell_weights_apart(device):
    same, model = Backbone(tiny()).fingerprint(), tiny()
    assert len(same) == 16
    assert Backbone(tiny().to(device)).fingerprint() == same  # wherever they are
    assert Backbone(model).fingerprint() == same
    assert Backbone(model, "one").fingerprint() == same  # of the model, not of the layers
    assert Backbone(tiny(seed=4)).fingerprint() != same
    with torch.no_grad():
        model.fc.bias[2] += 1e-6
    assert Backbone(model).fingerprint() != same
    norm = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = Backbone(norm, "0").fingerprint()
    norm[1].running_mean += 1
    assert Backbone(norm, "0").fingerprint() != before


class Square(Tiny):
    """Takes one size only."""

    def forward(self, x):
        assert x.shape[-2:] == (128, 128), "only 128x128"
        return super().forward(x)


def test_layers_and_models_that_do_not_do():
    with pytest.raises(LayerError, match="no layer named 'four'"):
        Backbone(tiny(), "four")
    with pytest.raises(ModelError, match=r"feature maps \[N,C,h,w\] are needed, but 'fc' \(\[1, 6\]\) was found"):
        Backbone(tiny(), ["one", "fc"])
    backbone = Backbone(Square().eval())
    with pytest.raises(ModelError, match=r"does not take images of 64x32 pixels .only 128x128"):
        backbone(torch.zeros(1, 3, 64, 32))


def test_an_image_of_one_position_has_the_same_layers():
    """Where several stages have a map of one position, "stages" by itself would find fewer layers."""
    backbone = Backbone(timm.create_model("resnet10t", num_classes=3).eval())
    maps = backbone(torch.rand(2, 3, 32, 32))
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    assert [m.shape[1] for m in maps] == backbone.channels
