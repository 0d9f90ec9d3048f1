"""Signals [N,C,L] and volumes [N,C,D,H,W]: the same network on images with one more dimension gives the same maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import camplug
from camplug.errors import InputError, LayerError
from camplug.explain.base import LayerExplainer
from camplug.explain.registry import get_method, list_methods

METHODS = [name for name in list_methods() if issubclass(get_method(name), LayerExplainer)]
OPTIONS = {"fem": {"deviations": 1.0}}  # of five positions none is two deviations above the mean
NEAR = {"rtol": 1e-6, "atol": 1e-8}
FACTORIZED = {"rtol": 1e-3, "atol": 1e-3}  # steps that end at a change of 1e-4 enlarge the features' last bits
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Net(nn.Module):
    """Two convolutions of kernel 3 and stride 1, then 2, along `axes` of `dims` dimensions; pooling; linear head."""

    def __init__(self, dims: int, axes: tuple[int, ...]):
        super().__init__()
        kernel = tuple(3 if a in axes else 1 for a in range(dims))
        pad = tuple(k // 2 for k in kernel)
        stride = tuple(2 if a in axes else 1 for a in range(dims))
        self.a = CONVS[dims](2, 6, kernel, padding=pad)
        self.norm = NORMS[dims](6)
        self.b = CONVS[dims](6, 8, kernel, stride, padding=pad)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.a(x)))
        return self.head(torch.relu(self.b(x)).flatten(2).mean(2))


def make_pair(small: int, large: int, axes: tuple[int, ...]):
    """A network of `small` dimensions, and the same one in `large`, whose dimensions `axes` are the small one's."""
    torch.manual_seed(1)
    plain, lifted = Net(small, tuple(range(small))).double().eval(), Net(large, axes).double().eval()
    lifted.load_state_dict({k: v.reshape(lifted.state_dict()[k].shape) for k, v in plain.state_dict().items()})
    return plain, lifted


def lift(x, large, axes):
    shape = [1] * large
    for a, n in zip(axes, x.shape[2:], strict=True):
        shape[a] = n
    return x.reshape(*x.shape[:2], *shape)


@pytest.mark.parametrize("name", METHODS)
def test_a_signal_has_the_map_of_an_image_of_one_row(name):
    signal, image = make_pair(1, 2, (1,))
    x = torch.randn(3, 2, 10, dtype=torch.float64)
    ours = camplug.create(name, signal, **OPTIONS.get(name, {})).maps(x, [0, 2, 1])
    assert ours.shape == (3, 10)
    want = camplug.create(name, image, **OPTIONS.get(name, {})).maps(lift(x, 2, (1,)), [0, 2, 1])
    torch.testing.assert_close(ours, want[:, 0], **FACTORIZED if name == "dff" else NEAR)
    assert float(ours.amax()) == 1


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("axes", [(1, 2), (0, 1), (0, 2)])
def test_a_volume_of_one_layer_has_the_map_of_the_image(name, axes):
    image, volume = make_pair(2, 3, axes)
    x = torch.randn(2, 2, 6, 9, dtype=torch.float64)
    size = tuple(lift(torch.zeros(1, 1, 7, 5), 3, axes).shape[2:])
    ours = camplug.create(name, volume, **OPTIONS.get(name, {})).maps(lift(x, 3, axes), [[0, 1], [2]], size=size)
    want = camplug.create(name, image, **OPTIONS.get(name, {})).maps(x, [[0, 1], [2]], size=(7, 5))
    assert [m.shape[0] for m in ours] == [2, 1]
    for a, b in zip(ours, want, strict=True):
        torch.testing.assert_close(a.reshape(b.shape), b, **FACTORIZED if name == "dff" else NEAR)


def test_grad_cam_of_a_volume_by_hand():
    torch.manual_seed(0)
    model = Net(3, (0, 1, 2)).double().eval()
    x = torch.randn(2, 2, 4, 6, 8, dtype=torch.float64)
    kept = {}
    handle = model.b.register_forward_hook(lambda m, i, o: kept.update(a=o))
    (g,) = torch.autograd.grad(model(x)[:, 1].sum(), kept["a"])
    handle.remove()
    a = kept["a"].detach()
    small = torch.relu((g.mean((2, 3, 4), keepdim=True) * a).sum(1))
    want = torch.nn.functional.interpolate(small[:, None], (4, 6, 8), mode="trilinear")[:, 0]
    want = want / want.amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(camplug.GradCAM(model).maps(x, 1), want, rtol=1e-9, atol=1e-12)


def test_an_image_network_with_a_conv1d_inside_takes_images():
    class Attention(nn.Module):  # as in ECA-Net
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 3, padding=1)

        def forward(self, x):
            weight = self.conv(x.mean((2, 3))[:, None]).sigmoid()[:, 0]
            return x * weight[..., None, None]

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), Attention(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert camplug.FullyCAM(model).tape().names == ["0"]
    assert camplug.FullyCAM(model).maps(torch.randn(2, 3, 8, 8), 0).shape == (2, 8, 8)


@pytest.mark.parametrize(
    ("dims", "shape", "message"),
    [
        (1, (2, 10), r"takes a batch \[N,C,L\] of at least one signal; got \[2, 10\], use x\[None\]"),
        (1, (1, 2, 5, 5), r"takes a batch \[N,C,L\]"),
        (3, (2, 4, 4, 4), r"takes a batch \[N,C,D,H,W\] of at least one volume; got .* use x\[None\]"),
        (2, (1, 2, 4, 5, 5), r"takes a batch \[N,3,H,W\]"),
    ],
)
def test_another_number_of_dimensions_is_refused(dims, shape, message):
    with pytest.raises(InputError, match=message):
        camplug.GradCAM(Net(dims, tuple(range(dims)))).maps(torch.zeros(shape), 0)


def test_wrappers_and_masks_need_images():
    model = Net(1, (0,))
    for explainer in (
        camplug.MultiView(camplug.GradCAM(model)),
        camplug.RISE(model),
        camplug.SplitUnite(camplug.CAM(model)),
    ):
        with pytest.raises(InputError, match=r"takes signals .* need images"):
            explainer.maps(torch.zeros(1, 2, 8), 0)


def test_a_layer_without_map_and_a_wrong_size_are_refused():
    model = Net(1, (0,))
    with pytest.raises(LayerError, match=r"'head' puts out \[1, 3\] .* no feature map \[N,C,l\]"):
        camplug.GradCAM(model, layers="head").maps(torch.zeros(1, 2, 8), 0)
    with pytest.raises(InputError, match=r"give \(length,\)"):
        camplug.GradCAM(model).maps(torch.zeros(1, 2, 8), 0, size=(4, 4))
