"""Tokens of transformers: which are patches, in which order they stand, and which layer holds them."""

from __future__ import annotations

import pytest
import torch
from maps_by_hand import by_hand, images, on
from reference import relative_error
from torch import nn

import camplug
from camplug import LayerError


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * x.pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt() * self.weight


class Attend(nn.Module):
    """Attention with its softmax in a module, as vit-pytorch writes it."""

    def __init__(self, width):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.softmax = nn.Softmax(-1)

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = self.softmax(q @ k.transpose(-1, -2)) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.one, self.attend, self.two = RMSNorm(width), Attend(width), RMSNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        x = x + self.attend(self.one(x))
        return x + self.mlp(self.two(x))


class Tokens(nn.Module):
    """A small transformer without a telling name: tokens before and behind the patches, pooled in one of two ways."""

    def __init__(self, before=1, behind=0, pool="first", swap=False, width=12):
        super().__init__()
        self.cut = nn.Conv2d(3, width, 8, 8)
        self.pre, self.post = (nn.Parameter(torch.randn(1, n, width)) for n in (before, behind))
        self.place = nn.Embedding(16 + before + behind, width)
        self.layers = nn.ModuleList([Block(width) for _ in range(3)])
        self.norm, self.head = RMSNorm(width), nn.Linear(width, 5)
        self.pool, self.swap = pool, swap

    def forward(self, x):
        x = self.cut(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.pre.expand(len(x), -1, -1), x, self.post.expand(len(x), -1, -1)], 1)
        x = x + self.place(torch.arange(x.shape[1], device=x.device))
        for layer in self.layers:
            if self.swap:  # the same network, whose blocks hand on [L,N,C]
                x = x.transpose(0, 1)
                x = Swapped.apply_to(layer, x)
                x = x.transpose(0, 1)
            else:
                x = layer(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.pool == "first" else x.mean(1))


class Swapped(Block):
    """A block whose input and output are [L,N,C]."""

    @staticmethod
    def apply_to(layer, x):
        return layer(x)

    def forward(self, x):
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


def patches(first, last=None):
    return lambda t: t[:, first:last].transpose(1, 2).reshape(t.shape[0], -1, 4, 4)


TOKENS = {
    "class token": ({}, "layers.2.one", patches(1)),
    "class token and registers": ({"before": 5}, "layers.2.one", patches(5)),
    "patches alone": ({"before": 0, "pool": "mean"}, "layers.2", patches(0)),
    "mean over all tokens": ({"pool": "mean"}, "layers.2", patches(1)),
    "detection tokens behind": ({"behind": 5}, "layers.2.one", patches(1, 17)),
    "behind, averaged": ({"behind": 5, "pool": "mean"}, "layers.2", patches(1, 17)),
}


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("method", ["gradcam", "layercam", "fully"])
def test_tokens_by_evidence(name, method, device):
    options, layer, grid = TOKENS[name]
    model, x = on(Tokens(**options), device), images(device)
    layers = [layer.replace("2", str(i)) for i in range(3)] if method == "fully" else [layer]
    got = camplug.create(method, model).maps(x, 1)
    for one, want in zip(got, by_hand(method, model, layers, x, 1, grid), strict=True):
        assert want.max() == 1
        assert relative_error(one, want) <= 1e-9
    named = camplug.create(method, model, layers=layers).maps(x, 1)
    assert torch.equal(named, got)


@pytest.mark.parametrize("method", ["gradcam", "fully"])
def test_tokens_first(method, device):
    """[L,N,C], as OpenAI's CLIP and torch's own attention have it, is told by N and the number of patches."""
    model = Tokens(pool="mean", swap=True)
    model.layers = nn.ModuleList([Swapped(12) for _ in range(3)])
    model, x = on(model, device), images(device)
    layers = [f"layers.{i}" for i in range(3)] if method == "fully" else ["layers.2"]
    got = camplug.create(method, model).maps(x, 1)
    wanted = by_hand(method, model, layers, x, 1, lambda t: patches(1)(t.transpose(0, 1)))
    for one, want in zip(got, wanted, strict=True):
        assert relative_error(one, want) <= 1e-9


def test_as_many_images_as_tokens_cannot_be_told(device):
    model, x = on(Tokens(before=0, pool="mean"), device), images(device, 16)
    with pytest.raises(LayerError, match="16 images or 16 tokens first"):
        camplug.GradCAM(model).maps(x, 1)


class Tower(nn.Module):
    """A text tower beside the image tower, both behind names that say nothing."""

    def __init__(self, words):
        super().__init__()
        self.see, self.read = Tokens(before=1, pool="mean"), nn.ModuleList([Block(12), Block(12)])
        self.words = nn.Parameter(torch.randn(2, words, 12))

    def forward(self, x):
        image, text = self.see(x), self.words
        for block in self.read:
            text = block(text)
        return image @ text.mean(1)[:, :5].T


@pytest.mark.parametrize("words", [20, 17, 16])  # 16 are as many as there are patches
def test_a_text_tower_is_no_image_tower(words, device):
    model, x = on(Tower(words), device), images(device)
    got = camplug.GradCAM(model).maps(x, 1)
    for one, want in zip(got, by_hand("gradcam", model, ["see.layers.2"], x, 1, patches(1)), strict=True):
        assert relative_error(one, want) <= 1e-9
    with pytest.raises(LayerError, match=rf"read\.1.*\[2, {words}, 12\], which is not made of the images"):
        camplug.GradCAM(model, "read.1").maps(x, 1)


class Unrolled(nn.Module):
    """Tokens window by window, as Hiera has them: rows of four patches are no rows of the image."""

    def __init__(self):
        super().__init__()
        self.cut = nn.Conv2d(3, 12, 8, 8)
        self.layers, self.last = nn.ModuleList([Block(12) for _ in range(2)]), Block(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.cut(x).unfold(2, 4, 4).unfold(3, 4, 4)  # [N,C,2,2,4,4]
        x = x.permute(0, 2, 3, 4, 5, 1).flatten(1, 4)
        for layer in self.layers:
            x = layer(x)
        x = x.unflatten(1, (2, 2, 4, 4)).transpose(2, 3).flatten(1, 4)
        return self.head(self.last(x).mean(1))


def test_tokens_that_do_not_stand_row_by_row_are_passed_by(device):
    model, x = on(Unrolled(), device), images(device, side=64)
    with torch.no_grad():
        for block in (*model.layers, model.last):
            block.attend.out.weight.mul_(0.05)
    grid = lambda t: t.transpose(1, 2).reshape(t.shape[0], -1, 8, 8)  # noqa: E731
    got = camplug.FullyCAM(model).maps(x, 1)
    for one, want in zip(got, by_hand("fully", model, ["last"], x, 1, grid), strict=True):
        assert relative_error(one, want) <= 1e-9
    with pytest.raises(LayerError, match=r"tokens of the layer 'layers\.1' do not stand row by row"):
        camplug.LayerCAM(model, "layers.1").maps(x, 1)


class Outside(nn.Module):
    """A transformer whose residual sums are written beside its layers (vit-pytorch), or torch's own layers."""

    def __init__(self, kind, pool):
        super().__init__()
        self.cut, self.pool = nn.Conv2d(3, 12, 8, 8), pool
        self.first, self.place = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 17, 12))
        if kind == "torch":
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(12, 2, 24, 0.0, batch_first=True, norm_first=True) for _ in range(3)
            )
        else:
            parts = lambda: nn.ModuleList([nn.Sequential(nn.LayerNorm(12), Attend(12)), nn.Linear(12, 12)])  # noqa: E731
            self.layers = nn.ModuleList(parts() for _ in range(3))
        self.kind, self.head = kind, nn.Linear(12, 5)

    def forward(self, x):
        x = self.cut(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.place
        for layer in self.layers:
            if self.kind == "torch":
                x = layer(x)
            else:
                x = layer[0](x) + x
                x = layer[1](x) + x
        return self.head(x[:, 0] if self.pool == "first" else x.mean(1))


@pytest.mark.parametrize(
    ("kind", "pool", "layer"),
    [("torch", "first", "layers.2.norm1"), ("torch", "mean", "layers.2"), ("outside", "first", "layers.2.0.0")],
)
@pytest.mark.parametrize("method", ["gradcam", "fully"])
def test_transformers_written_in_other_ways(kind, pool, layer, method, device):
    model, x = on(Outside(kind, pool), device), images(device)
    layers = [layer.replace("2", str(i)) for i in range(3)] if method == "fully" else [layer]
    got = camplug.create(method, model).maps(x, 1)
    for one, want in zip(got, by_hand(method, model, layers, x, 1, patches(1)), strict=True):
        assert want.max() == 1
        assert relative_error(one, want) <= 1e-9


class Crossing(nn.Module):
    """Two branches of tokens that no one map carries to the score."""

    def __init__(self):
        super().__init__()
        self.cut = nn.ModuleList([nn.Conv2d(3, 12, 8, 8), nn.Conv2d(3, 12, 8, 8)])
        self.layers, self.head = nn.ModuleList([Block(12) for _ in range(6)]), nn.Linear(12, 5)

    def forward(self, x):
        a, b = (cut(x).flatten(2).transpose(1, 2) for cut in self.cut)
        for i, layer in enumerate(self.layers):
            a, b = (layer(a), b) if i % 2 else (a, layer(b))
        return self.head(a.mean(1)) + self.head(b.mean(1))


@pytest.mark.parametrize("method", ["gradcam", "fully"])
def test_layers_long_before_the_head_are_no_default(method, device):
    with pytest.raises(LayerError, match=r"carries the image to the score|most of the attention"):
        camplug.create(method, on(Crossing(), device)).maps(images(device), 1)
