"""One map per image of layers that the run proves, or one sentence; the model sees what it was given."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from maps_by_hand import by_hand, images, on
from reference import relative_error
from torch import nn

import camplug
from camplug import LayerError


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
