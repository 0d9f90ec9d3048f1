"""Pixel methods against loops over images, and what they must add up to."""

from __future__ import annotations

import awkward
import feature_maps
import pytest
import torch
from reference import relative_error

import camplug
from camplug.explain.pixels import integrate_gradients, make_noise
from camplug.explain.saliency import compute_saliency, multiply_by_input


def gradient(model, image, c):
    image = image.detach().requires_grad_()
    return torch.autograd.grad(model(image)[0, c], image)[0]


def slow_integrated(model, image, c, steps, baseline):
    total = torch.zeros_like(image)
    for i in range(steps):
        total += gradient(model, baseline + (image - baseline) * (i + 0.5) / steps, c) / steps
    return ((image - baseline) * total).sum(1)[0]


def slow_smooth(model, image, c, samples, share):
    generator, total = torch.Generator().manual_seed(3), torch.zeros_like(image)
    for _ in range(samples):
        noise = torch.randn(3, 12, 16, generator=generator) * share * float(image.max() - image.min())
        total += gradient(model, image + noise.to(image), c) / samples
    return total.abs().sum(1)[0]


@pytest.mark.parametrize("method", ["integratedgradients", "smoothgrad", "saliency", "inputxgradient"])
def test_equals_the_slow_reference(method, device):
    model, x = feature_maps.make(device)
    options, slow = {
        "integratedgradients": ({"steps": 5, "baseline": -0.5}, lambda i, c: slow_integrated(model, i, c, 5, -0.5)),
        "smoothgrad": ({"samples": 4, "noise": 0.2, "seed": 3}, lambda i, c: slow_smooth(model, i, c, 4, 0.2)),
        "saliency": ({}, lambda i, c: gradient(model, i, c).abs().amax(1)[0]),
        "inputxgradient": ({}, lambda i, c: (i * gradient(model, i, c)).sum(1)[0]),
    }[method]
    model.train()
    explainer = camplug.create(method, model, **options)
    with torch.inference_mode():
        got = explainer.maps(x, feature_maps.CLASSES)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    model.eval()
    for i, classes in enumerate(feature_maps.CLASSES):
        for k, c in enumerate(classes):
            assert relative_error(got[i][k], feature_maps.finish(slow(x[i : i + 1], c))) <= 1e-6
    torch.testing.assert_close(explainer.maps(x[1:], lambda y: y[:, 1])[0], got[1][0])


def test_attributions_add_up_to_the_difference_of_the_scores():
    model, x = feature_maps.make()
    model.requires_grad_(False)
    mean = torch.zeros_like(x)
    for k in range(200):
        copies = (x * (k + 0.5) / 200).requires_grad_()
        mean += torch.autograd.grad(model(copies)[:, 1].sum(), copies)[0] / 200
    total = integrate_gradients(x, torch.zeros_like(x), mean).sum((1, 2, 3))
    torch.testing.assert_close(total, (model(x) - model(torch.zeros_like(x)))[:, 1].detach(), rtol=0, atol=1e-3)


def test_golden_numbers():
    x, g = torch.tensor([[[[2.0, 4.0]]]]), torch.tensor([[[[0.5, -1.0]]]])
    torch.testing.assert_close(integrate_gradients(x, torch.ones_like(x), g), torch.tensor([[[[0.5, -3.0]]]]))
    two = torch.tensor([[[[2.0, -4.0]], [[1.0, 0.0]]]]), torch.tensor([[[[0.5, 1.0]], [[-3.0, 2.0]]]])
    assert compute_saliency(two[1]).tolist() == [[[3.0, 2.0]]]
    assert multiply_by_input(*two).tolist() == [[[-2.0, -4.0]]]
    noise = list(make_noise(torch.tensor([[[[0.0, 2.0]]], [[[0.0, 6.0]]]]), 0.5, 1, 2))
    torch.testing.assert_close(noise[0][1], noise[0][0] * 3)
    assert not torch.equal(noise[0], noise[1])


def test_images_that_are_not_the_first_argument():
    model, x = feature_maps.make()

    class Late(awkward.Wrapped):
        def forward(self, scale, image):
            return self.inner(image) * scale

    late = Late(model, None).eval()
    inputs = camplug.Inputs(camplug.Shared(torch.tensor(2.0).double()), camplug.IMAGE)
    for method in ("integratedgradients", "smoothgrad", "inputxgradient"):
        want = camplug.create(method, model).maps(x, 1)
        torch.testing.assert_close(camplug.create(method, late).maps(x, 1, inputs=inputs), want)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("integratedgradients", {"steps": 0}, r"steps=0, baseline=0.0; give a whole number of at least 1"),
        ("integratedgradients", {"baseline": "black"}, r"steps=32, baseline='black'; give"),
        ("smoothgrad", {"samples": 1.5}, r"samples=1.5, noise=0.15; give a whole number of at least 1"),
        ("smoothgrad", {"noise": -1}, r"samples=16, noise=-1; give"),
        ("smoothgrad", {"evidence": "negative"}, "smoothgrad shows sensitivity, which has no sign"),
        ("saliency", {"evidence": "negative"}, "saliency shows sensitivity, which has no sign; take InputXGradient"),
        ("smoothgradcam++", {"samples": 0}, "samples=0, noise=0.15; give"),
    ],
)
def test_refusals(method, options, said):
    with pytest.raises(camplug.InputError, match=said):
        camplug.create(method, awkward.FeatureModule(), **options)


def test_equals_captum():
    attr = pytest.importorskip("captum.attr")
    model, x = feature_maps.make()
    theirs = attr.IntegratedGradients(model).attribute(x, target=1, n_steps=40, method="riemann_middle").sum(1)
    ours = camplug.IntegratedGradients(model, 40, normalize=None).maps(x, 1)
    torch.testing.assert_close(ours, theirs.clamp_min(0), rtol=1e-6, atol=1e-9)
    for name, reduce in (("Saliency", lambda a: a.amax(1)), ("InputXGradient", lambda a: a.sum(1).clamp_min(0))):
        theirs = reduce(getattr(attr, name)(model).attribute(x.clone().requires_grad_(), target=1)).detach()
        torch.testing.assert_close(getattr(camplug, name)(model, normalize=None).maps(x, 1), theirs)


def test_input_times_gradient_adds_up_to_the_score_without_biases():
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3, bias=False)
    model = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64).requires_grad_()
    (g,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    torch.testing.assert_close(multiply_by_input(x, g).sum((1, 2)), model(x)[:, 1])


def test_one_gradient_takes_one_pass():
    model, x = feature_maps.make()
    calls = []
    camplug.Saliency(model).maps(x, 1)  # looks for the faster memory format, once per model
    model.register_forward_hook(lambda *_: calls.append(1))
    camplug.Saliency(model).maps(x, 1)
    assert len(calls) == 1
