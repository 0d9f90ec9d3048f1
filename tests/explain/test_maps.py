"""`maps`: what it takes, what it gives, what it refuses."""

from __future__ import annotations

import awkward
import numpy as np
import pytest
import torch
import wrapped
from cases import CNN_METHODS
from torch import nn
from wrapped import same

import camplug
from camplug import InputError, LayerError, TargetError


def model_and_batch(n=3, device="cpu"):
    return wrapped.model_and_batch(n, device=device)


@pytest.mark.parametrize("method", CNN_METHODS)
def test_classes_in_every_form_agree(method, device):
    model, x = model_and_batch(device=device)
    e = camplug.create(method, model)
    want = e.maps(x, [2, 0, 2])
    for form in (torch.tensor([2, 0, 2]), (2, 0, 2), np.array([2, 0, 2])):
        assert same(e.maps(x, form), want)
    for form in ([[2], [0], [2]], torch.tensor([[2], [0], [2]]), [np.array([2]), (0,), torch.tensor([2])]):
        listed = e.maps(x, form)
        assert isinstance(listed, list)
        assert same(torch.cat(listed), want)
    for one in (2, torch.tensor(2), np.int64(2)):
        assert torch.allclose(e.maps(x, one)[0], want[0], atol=1e-12)


@pytest.mark.parametrize("method", CNN_METHODS)
def test_none_is_the_predicted_class(method, device):
    model, x = model_and_batch(device=device)
    e = camplug.create(method, model)
    assert same(e.maps(x), e.maps(x, model(x).argmax(1)))


@pytest.mark.parametrize("method", sorted(set(CNN_METHODS) - {"cam", "rise", "reciprocam", "shapleycam"}))
def test_a_callable_on_the_output(method, device):
    model, x = model_and_batch(device=device)
    e = camplug.create(method, model)
    assert torch.allclose(e.maps(x, lambda y: y[:, 2]), e.maps(x, 2), atol=1e-12)
    contrast = e.maps(x, lambda y: y[:, 2] - y[:, 0])
    assert contrast.shape == x[:, 0].shape
    if e.knows_classes and method != "scorecam":  # a softmax of nearly equal scores is nearly flat
        assert not torch.allclose(contrast, e.maps(x, 2))
    with pytest.raises(TargetError, match="one number per image"):
        e.maps(x, lambda y: y.sum())


def test_cam_refuses_a_callable():
    model, x = model_and_batch()
    with pytest.raises(TargetError, match="GradCAM"):
        camplug.CAM(model).maps(x, lambda y: y[:, 0])


def test_a_score_from_an_output_without_class_scores(device):
    model, x = model_and_batch(device=device)
    spread = awkward.Wrapped(model, lambda y: y[:, :, None, None].expand(-1, -1, 4, 4))
    e = camplug.GradCAM(spread, "inner.act")
    with pytest.raises(camplug.ModelError, match="callable"):
        e.maps(x, 1)
    assert torch.allclose(e.maps(x, lambda y: y[:, 1].mean((1, 2))), camplug.GradCAM(model).maps(x, 1), atol=1e-12)


def test_a_single_output_per_image(device):
    model, x = model_and_batch(device=device)
    one = awkward.Wrapped(model, lambda y: y[:, 3])
    assert torch.allclose(camplug.GradCAM(one).maps(x), camplug.GradCAM(model).maps(x, 3), atol=1e-12)
    with pytest.raises(TargetError, match="1 classes; allowed are 0 to 0"):
        camplug.GradCAM(one).maps(x, 3)


def test_no_classes_at_all(device):
    model, x = model_and_batch(device=device)
    assert [m.shape[0] for m in camplug.FullyCAM(model).maps(x, [[], [], []])] == [0, 0, 0]


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.randn(3, 12, 12), r"x\[None\]"),
        (torch.zeros(1, 3, 12, 12, dtype=torch.uint8), "explain"),
        (torch.randn(0, 3, 12, 12), "at least one image"),
        (np.zeros((1, 3, 12, 12)), "ndarray"),
        (torch.randn(1, 3, 12, 12, device="meta"), "the model is on cpu"),
    ],
)
@pytest.mark.parametrize("method", ["cam", "gradcam", "eigencam"])
def test_what_is_no_batch_is_told(x, says, method):
    with pytest.raises(InputError, match=says):
        camplug.create(method, awkward.FeatureModule().eval()).maps(x, 0)


@pytest.mark.parametrize("size", [(0, 4), (3,), (4, -1)])
def test_bad_sizes(size):
    model, x = model_and_batch()
    with pytest.raises(InputError, match="size="):
        camplug.GradCAM(model).maps(x, 0, size=size)


@pytest.mark.parametrize("options", [{"normalize": "sum"}, {"layer_weighting": "sum"}])
def test_bad_options(options):
    with pytest.raises(InputError, match="allowed are"):
        camplug.GradCAM(awkward.FeatureModule(), **options)


def test_a_missing_layer_is_told_at_once():
    with pytest.raises(LayerError, match="no layer named 'layer9'"):
        camplug.GradCAM(awkward.FeatureModule(), "layer9")


def test_methods_by_name():
    assert camplug.list_methods("grad*") == ["gradcam", "gradcam++", "gradeclip", "gradientrollout"]
    model = awkward.FeatureModule()
    for name in ("fully", "FullyCAM", "fully-cam", "Grad-CAM", "gradcam++", "Layer_CAM", "eigen"):
        assert isinstance(camplug.create(name, model), camplug.Explainer)
    with pytest.raises(InputError, match="Did you mean 'gradcam'"):
        camplug.create("gradcma", model)


def test_cam_with_convolution_heads(device):
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3), nn.ReLU()]
    conv = nn.Conv2d(8, 5, 1)
    nn.init.uniform_(conv.weight, -0.3, 1)
    first = nn.Sequential(*body, conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    second = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), conv, nn.Flatten()).double().eval()
    linear = nn.Linear(8, 5).double()
    linear.weight.data, linear.bias.data = conv.weight.data.flatten(1), conv.bias.data
    third = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).double().eval()
    x = torch.randn(2, 3, 9, 11).to(device, torch.float64)
    want = camplug.GradCAM(third.to(device), "1").maps(x, [1, 4])
    for model in (first, second, third):
        model.to(device)
        assert torch.allclose(camplug.CAM(model).maps(x, [1, 4]), want, atol=1e-10)


def test_cam_with_a_named_layer_checks_the_channels(device):
    model, x = model_and_batch(device=device)
    assert same(camplug.CAM(model, "act").maps(x, 1), camplug.CAM(model).maps(x, 1))
    wide = awkward.FeatureModule()
    wide.head = nn.Linear(6, 5)
    wide.forward = lambda t: wide.head(wide.features(t).mean((2, 3))[:, :6])
    with pytest.raises(LayerError, match="8 channels and the head reads 6"):
        camplug.CAM(wide.to(device, torch.float64), "act").maps(x, 1)


def test_an_overflow_inside_the_map_is_told(device):
    model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.Flatten(2), nn.Softmax(2)).eval()
    nn.init.constant_(model[0].weight, 1e38)
    model.to(device)
    x = torch.full((1, 3, 2, 2), 1.0).to(device)
    with pytest.raises(TargetError, match="NaN or infinite"):
        camplug.GradCAM(model, "0").maps(10 * x, lambda y: y[:, 0, 0].nan_to_num())


@pytest.mark.parametrize("method", CNN_METHODS)
def test_unnormalized_is_a_copy_with_raw_values(method, device):
    model, x = model_and_batch(device=device)
    for how in ("max", "minmax", None):
        e = camplug.create(method, model, normalize=how)
        raw = e.without_normalization()
        assert (raw.normalize, e.normalize) == (None, how)
        assert type(raw) is type(e)
        assert same(raw.maps(x, 1), camplug.create(method, model, normalize=None).maps(x, 1))


def test_cam_of_an_image_so_small_that_the_last_map_is_one_position(device):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model, x = model.to(device), torch.randn(2, 3, 2, 2).to(device)
    raw = camplug.CAM(model, normalize=None).maps(x, 1)
    want = (model[1](model[0](x))[:, :, 0, 0] @ model[4].weight[1]).clamp_min(0)
    assert torch.allclose(raw, want[:, None, None].expand(2, 2, 2))


def test_three_dimensions_are_one_image_or_signals():
    with pytest.raises(camplug.InputError, match=r"got \[3, 8, 8\], use x\[None\] for one image\."):
        camplug.GradCAM(nn.Conv2d(3, 2, 3)).maps(torch.zeros(3, 8, 8))
    with pytest.raises(camplug.InputError, match=r"\[N,C,L\] of at least one signal; got \[1, 100\], use x\[None\]"):
        camplug.GradCAM(nn.Conv1d(1, 2, 3)).maps(torch.zeros(1, 100))


def test_a_hook_that_takes_values_to_numpy(device):
    model = awkward.FeatureModule().eval().to(device)
    x, seen = torch.randn(1, 3, 12, 12, device=device), []
    model.register_forward_hook(lambda module, inputs, output: seen.append(output.cpu().numpy()))
    with pytest.raises(
        camplug.ModelError, match=r"hook on it, calls .numpy\(\) on a tensor .* write .detach\(\).numpy\(\)"
    ):
        camplug.GradCAM(model).maps(x, 0)
    camplug.EigenCAM(model).maps(x, 0)
    assert seen
