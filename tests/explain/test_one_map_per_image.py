"""One map per image of layers that the run proves, or one sentence; the model sees what it was given."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from reference import reference_map, relative_error
from torch import nn

import camplug
from camplug import LayerError


def on(model, device):
    """The model in float64 on a device, with evidence of both signs."""
    torch.manual_seed(3)
    for p in model.parameters():
        nn.init.normal_(p, 0, 0.3)
    return model.double().eval().to(device)


def images(device, n=2, side=32, channels=3):
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1)).double().to(device)


def by_hand(method, model, layers, x, wanted, grid=lambda t: t):
    """The reference of every image alone."""
    return [
        reference_map(method, model, layers, x[i : i + 1], lambda y: y[:, wanted], grid=grid) for i in range(len(x))
    ]


class Tutorial(nn.Module):
    """The network of PyTorch's tutorial on training a classifier."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 30)
        self.fc2 = nn.Linear(30, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        return self.fc2(F.relu(self.fc1(x)))


@pytest.mark.parametrize("method", ["gradcam", "layercam", "fully", "eigencam"])
def test_a_model_that_views_its_maps(method, device):
    model, x = on(Tutorial(), device), images(device, 4)
    layers = ["conv1", "conv2"] if method == "fully" else ["conv2"]
    got = camplug.create(method, model).maps(x, 3)
    for one, want in zip(got, by_hand(method, model, layers, x, 3), strict=True):
        assert relative_error(one, want) <= 1e-9


class Layout(nn.Module):
    """Computes something else on an image in another layout, without an error."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        raw = x.as_strided(x.shape, (3 * 32 * 32, 32 * 32, 32, 1))
        return self.head(self.act(self.conv(raw)).mean((2, 3)))


def test_a_model_that_reads_memory_as_it_lies(device):
    model, x = on(Layout(), device), images(device, 4)
    got = camplug.GradCAM(model, "act").maps(x, 1)
    for one, want in zip(got, by_hand("gradcam", model, ["act"], x, 1), strict=True):
        assert relative_error(one, want) <= 1e-9


def test_the_fast_layout_is_used_where_it_is_proved():
    seen = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    model[0].register_forward_pre_hook(lambda m, a: seen.append(a[0].is_contiguous(memory_format=torch.channels_last)))
    camplug.GradCAM(model, "0").maps(torch.randn(2, 3, 32, 32), 1)
    assert seen == [False, True, True]  # both layouts once, then the pass itself
    camplug.GradCAM(model, "1").maps(torch.randn(5, 3, 32, 32), 1)
    assert seen[3:] == [True]


class Dividing(nn.Module):
    """Overwrites its input, counts its calls in a buffer, an attribute and a list."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU()
        self.head = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.count, self.log = 0, []

    def forward(self, x):
        x /= 255
        self.calls += 1
        self.count += 1
        self.log.append(self.count)
        return self.head(self.act(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("method", ["gradcam", "cam", "fully"])
def test_the_first_call_is_like_every_other(method, device):
    model, x = on(Dividing(), device), 255 * images(device)
    before = x.clone()
    explainer = camplug.create(method, model)
    first = explainer.maps(x, 1)
    assert torch.equal(x, before)
    assert torch.equal(first, explainer.maps(x, 1))
    assert (int(model.calls), model.count, model.log) == (2, 2, [1, 2])
    if method != "cam":
        layer = "conv" if method == "fully" else "act"
        for one, want in zip(first, by_hand(method, model, [layer], before.clone(), 1), strict=True):
            assert relative_error(one, want) <= 1e-9


class Second(nn.Module):
    """Needs a second input per image, by name, or holds it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU()
        self.head = nn.Linear(4, 3)
        self.held = None

    def forward(self, x=None, *, weight=None):
        weight = self.held if weight is None else weight
        return self.head((self.act(self.conv(x)) * weight[:, None, None, None]).mean((2, 3)))


def test_keywords_and_batches_that_the_model_holds(device):
    model, x = on(Second(), device), images(device)
    weight = torch.tensor([1.0, 2.0]).double().to(device)
    with camplug.Tape(model, "last") as tape:
        y = model(x=x, weight=weight)
        ((layer, a, g),) = tape.gradients(y[:, 1])
    assert layer.name == "act"
    want = model.head.weight[1][None, :, None, None] * weight[:, None, None, None] / a[0, 0].numel()
    torch.testing.assert_close(g, want.expand_as(g).detach())
    model.held = weight
    assert camplug.GradCAM(model).maps(x, 1).shape == (2, 32, 32)


class Frames(nn.Module):
    """Folds the frames of a video, or both images of a pair, into the batch."""

    def __init__(self, after=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Linear(4, 5)
        self.after = nn.Conv2d(4, 4, 1) if after else None

    def forward(self, x):
        n = x.shape[0]
        x = self.act(self.conv(torch.stack([x, x.flip(3), -x, x / 2], 1).flatten(0, 1)))
        x = x.unflatten(0, (n, 4)).mean(1)
        if self.after is not None:
            x = self.after(x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("method", ["gradcam", "fully", "eigencam", "cam"])
def test_frames_folded_into_the_batch_are_refused(method, device):
    model, x = on(Frames(), device), images(device)
    with pytest.raises((LayerError, camplug.ModelError), match=r"8 maps for 2 images|does not"):
        camplug.create(method, model).maps(x, 1)
    with pytest.raises(LayerError, match=r"'act' puts out 8 maps for 2 images"):
        camplug.GradCAM(model, "act").maps(x, 1)


@pytest.mark.parametrize("method", ["gradcam", "fully"])
def test_a_default_passes_by_what_is_no_map_of_an_image(method, device):
    model, x = on(Frames(after=True), device), images(device)
    for one, want in zip(
        camplug.create(method, model).maps(x, 1), by_hand(method, model, ["after"], x, 1), strict=True
    ):
        assert relative_error(one, want) <= 1e-9


def test_reshape_gives_one_map_per_image(device):
    model, x = on(Frames(), device), images(device)
    first = camplug.GradCAM(model, "act", reshape=lambda t: t[::4]).maps(x, 1)
    assert first.shape == (2, 32, 32)
    with pytest.raises(LayerError, match=r"reshape= gives \[8, 4, 32, 32\]"):
        camplug.GradCAM(model, "act", reshape=lambda t: t).maps(x, 1)


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


class Aside(nn.Module):
    """Layers that put out maps and are no feature map: of no image, or of no influence, or of one position."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
        self.act = nn.ReLU()
        self.place, self.look = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)
        self.late = nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.conv(x)
        x = self.act(x * torch.sigmoid(self.excite(self.squeeze(x.mean((2, 3), keepdim=True)))))
        self.look(x)  # leads to no score
        x = x + self.place(torch.ones(1, 1, 32, 32).to(x)).expand_as(x)
        return self.head(self.late(x.mean((2, 3), keepdim=True)).flatten(1))


@pytest.mark.parametrize(("method", "layer"), [("gradcam", "act"), ("fully", "conv")])
def test_defaults_are_of_the_image_feed_the_score_and_have_positions(method, layer, device):
    model, x = on(Aside(), device), images(device)
    got = camplug.create(method, model).maps(x, 1)
    for one, want in zip(got, by_hand(method, model, [layer], x, 1), strict=True):
        assert relative_error(one, want) <= 1e-9


class NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return None


class Blocked(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(NoDerivative.apply(self.act(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("method", ["gradcam", "fully"])
def test_an_operation_without_a_gradient_is_told(method, device):
    with pytest.raises(LayerError, match="without a gradient"):
        camplug.create(method, on(Blocked(), device)).maps(images(device), 1)


def test_a_quantised_head_is_told():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(LayerError, match="without a gradient"):
        camplug.GradCAM(quantised).maps(torch.randn(2, 3, 16, 16), 1)
    assert camplug.EigenCAM(quantised).maps(torch.randn(2, 3, 16, 16), 1).shape == (2, 16, 16)


class LoraConv(nn.Module):
    """A convolution with an adapter, as peft builds it."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base_layer = base
        down = nn.Conv2d(base.in_channels, rank, base.kernel_size, base.stride, base.padding, bias=False)
        self.lora_A = nn.ModuleDict({"default": down})
        self.lora_B = nn.ModuleDict({"default": nn.Conv2d(rank, base.out_channels, 1, bias=False)})

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))

    def merged(self):
        conv = copy.deepcopy(self.base_layer)
        b, a = self.lora_B["default"].weight[:, :, 0, 0], self.lora_A["default"].weight
        conv.weight.data += torch.einsum("or,rihw->oihw", b, a)
        return conv


def test_a_convolution_with_adapters_is_one_layer(device):
    def make(wrap):
        convs = [wrap(nn.Conv2d(3, 6, 3, padding=1)), nn.ReLU(), wrap(nn.Conv2d(6, 8, 3, padding=1)), nn.ReLU()]
        return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

    model, x = on(make(LoraConv), device), images(device)
    merged = copy.deepcopy(model)
    merged[0], merged[2] = model[0].merged(), model[2].merged()
    assert camplug.FullyCAM(model).tape().names == ["0", "2"]
    assert relative_error(camplug.FullyCAM(model).maps(x, 1), camplug.FullyCAM(merged).maps(x, 1)) <= 1e-9


class Overwriting(nn.Module):
    """Overwrites what a function before it has kept for its gradient."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Linear(4, 3)

    def forward(self, x):
        x = self.act(self.conv(x))
        x += 1
        return self.head(x.mean((2, 3)))


def test_a_model_that_overwrites_what_the_gradient_needs(device):
    model, x = on(Overwriting(), device), images(device)
    with pytest.raises(LayerError, match="overwrites a value that the gradient needs"):
        camplug.FullyCAM(model).maps(x, 1)
    assert camplug.GradCAM(model).maps(x, 1).shape == (2, 32, 32)  # after it


def test_fsdp1_is_told():
    from torch import distributed
    from torch.distributed.fsdp import FullyShardedDataParallel

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        with pytest.raises(camplug.ModelError, match=r"FSDP1.*fully_shard"):
            camplug.GradCAM(FullyShardedDataParallel(inner, device_id=torch.device("cpu")))
    finally:
        distributed.destroy_process_group()


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
