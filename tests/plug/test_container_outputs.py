"""Containers that return features beside what they computed of them, as the base models of transformers do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from reference import reference_map
from torch import nn

import camplug
from camplug.plug import named_layers, select, trace_model


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU()

    def forward(self, pixel_values):
        features = self.act(self.conv(pixel_values))
        return features, features.mean((2, 3))


class Pooled(nn.Module):
    """The head reads the second output of the backbone alone."""

    def __init__(self, read=1):
        super().__init__()
        self.read = read
        self.backbone = Backbone()
        self.head = nn.Linear(4, 2)

    def forward(self, pixel_values):
        found = self.backbone(pixel_values=pixel_values)[self.read]
        return self.head(found if self.read else found.amax((2, 3)))


def find(model, selector, side=8):
    layers = named_layers(model)
    return list(select(model, layers, selector, trace_model(model, layers, (torch.ones(1, 3, side, side),))))


def test_a_container_whose_features_nobody_reads_is_not_the_last_layer():
    assert find(Pooled(1), "last") == ["backbone.act"]
    assert find(Pooled(0), "last") == ["backbone"]  # the outermost that returns what the head reads
    assert find(Pooled(1), "stages") == ["backbone.act"]


def test_maps_of_its_inner_layer():
    torch.manual_seed(0)
    model, x = Pooled().double().eval(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    a = model.backbone(x)[0]
    expected = torch.einsum("nkhw,k->nhw", a, model.head.weight[1] / 64).clamp_min(0)
    found = camplug.GradCAM(model, normalize=None).maps(x, 1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


class Attention(nn.Module):
    """`nn.MultiheadAttention` on patches, called with keywords."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, pixel_values):
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        return self.attention(x, x, x)[0].mean(1)


def test_attention_of_images_given_by_name_has_one_entry_per_image():
    model, x = Attention().eval(), torch.rand(2, 3, 8, 8)
    with camplug.Tape(model, (), attention=True, forward_only=True) as tape:
        model(pixel_values=x)
        (call,) = tape.attention
        assert call.probabilities.shape == (2, 2, 4, 4)  # [N,heads,T,T]
        torch.testing.assert_close(call.probabilities.sum(-1), torch.ones(2, 2, 4))


class PositionAttention(nn.Module):
    """A convolution on patches x positions [N,C,4,L/4] beside a softmax over positions, as MobileViT v2 has it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        h, w = x.shape[2] // 2, x.shape[3] // 2
        parts = x.unflatten(2, (h, 2)).unflatten(4, (w, 2)).permute(0, 1, 3, 5, 2, 4).flatten(4).flatten(2, 3)
        y = self.inner(parts)
        y = y * (y.softmax(-1) * y).sum(-1, keepdim=True)
        return y.unflatten(2, (2, 2)).unflatten(4, (h, w)).permute(0, 1, 4, 2, 5, 3).flatten(4).flatten(2, 3)


class Unfolded(nn.Module):
    """Three resolutions, so that patches x positions of one of them have the shape of a map."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.first = PositionAttention()
        self.middle = nn.Conv2d(8, 8, 3, 2, 1)
        self.second = PositionAttention()
        self.last = nn.Conv2d(8, 8, 3, 1, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.middle(self.first(self.stem(x)))
        return self.head(self.last(self.second(x)).mean((2, 3)))


def test_convolutions_on_unfolded_patches_have_no_map_of_the_image():
    assert find(Unfolded(), "convs") == ["stem", "middle", "last"]  # "second.inner" puts out [N,8,4,4]
    assert find(Unfolded(), "stages") == ["first", "last"]  # what its patches are folded to


class Rounded(PositionAttention):
    """As in MobileViT v2, maps of odd sides are enlarged by one."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        sides = [side + side % 2 for side in x.shape[2:]]
        return super().forward(self.inside(F.interpolate(x, sides, mode="bilinear")))


def test_maps_whose_sides_are_rounded_are_maps():
    model = Unfolded()
    model.second = Rounded()
    assert find(model, "convs", 14) == ["stem", "middle", "second.inside", "last"]  # 8x8 for 14x14, 14x8 for 28x14


def test_fully_cam_beside_unfolded_patches_has_its_value():
    torch.manual_seed(0)
    model, x = Unfolded().double().eval(), torch.rand(1, 3, 8, 8, dtype=torch.float64)
    want = reference_map("fully", model, ["stem", "middle", "last"], x, lambda out: out[:, 1])
    torch.testing.assert_close(camplug.FullyCAM(model).maps(x, 1)[0], want, rtol=1e-10, atol=1e-12)
