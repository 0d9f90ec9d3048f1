"""ShapleyCAM against a Hessian written out entry by entry."""

from __future__ import annotations

import awkward
import feature_maps
import pytest
import torch
import torch.nn.functional as F
from reference import relative_error
from torch import nn

import camplug
from camplug.explain.shapley_cam import shapley_cam


def rest(z, c):
    """Logit plus logarithm of the probability."""
    return z[0, c] + z[0, c] - z[0].exp().sum().log()


def slow(model, image, utility, finish=feature_maps.finish):
    """The map of one image, with the Hessian of the utility row by row."""
    a = model.features(image).detach()

    def of_map(flat):
        return utility(model.head(flat.view_as(a).mean((2, 3))))

    flat = a.flatten()
    hessian = torch.autograd.functional.hessian(of_map, flat)
    gradient = torch.autograd.functional.jacobian(of_map, flat)
    w = (gradient - hessian @ flat / 2).view(a.shape[1:]).mean((1, 2))
    return finish(torch.einsum("k,khw->hw", w, a[0]).clamp_min(0))


def test_equals_the_slow_reference():
    model, x = feature_maps.make()
    got = camplug.ShapleyCAM(model).maps(x, feature_maps.CLASSES)
    for i, classes in enumerate(feature_maps.CLASSES):
        for k, c in enumerate(classes):
            assert relative_error(got[i][k], slow(model, x[i : i + 1], lambda z, c=c: rest(z, c))) <= 1e-9


def test_a_callable_counts_as_it_is():
    model, x = feature_maps.make()
    linear = camplug.ShapleyCAM(model).maps(x, lambda y: y[:, 1])
    torch.testing.assert_close(linear, camplug.GradCAM(model).maps(x, 1))  # linear behind the map: no curvature
    curved = camplug.ShapleyCAM(model).maps(x, lambda y: y[:, 1] ** 3)
    for i in range(2):
        assert relative_error(curved[i], slow(model, x[i : i + 1], lambda z: z[0, 1] ** 3)) <= 1e-9


def test_several_labels_have_a_sigmoid_each():
    model, x = feature_maps.make()
    model.multi_label = True
    want = torch.stack([slow(model, x[i : i + 1], lambda z: z[0, 1] + F.logsigmoid(z[0, 1])) for i in range(2)])
    torch.testing.assert_close(camplug.ShapleyCAM(model).maps(x, 1), want)


def test_layers_before_the_last_and_in_place_operations():
    model, x = awkward.InPlace().double().eval(), feature_maps.make()[1]
    twice = camplug.ShapleyCAM(model, ["conv2", "act"], layer_weighting=None, normalize=None).maps(x, 1)
    alone = [camplug.ShapleyCAM(model, name, normalize=None).maps(x, 1) for name in ("conv2", "act")]
    torch.testing.assert_close(twice, sum(alone))


def test_golden_numbers():
    a, g = torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0]], [[2.0, 2.0]]]])
    c = torch.tensor([[[[2.0, 2.0]], [[0.0, 4.0]]]])
    # weights: mean(1 - 1, 0 - 1) = -0.5, mean(2 - 0, 2 - 2) = 1
    torch.testing.assert_close(shapley_cam(a, g, c), torch.tensor([[[0.0, 0.0]]]))
    torch.testing.assert_close(shapley_cam(a, g, torch.zeros_like(c)), torch.tensor([[[0.5, 3.0]]]))


class Once(torch.autograd.Function):
    """Its derivative cannot be differentiated again."""

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g


def test_an_operation_without_a_second_derivative_is_told():
    model, x = feature_maps.make()
    behind = awkward.Wrapped(nn.Sequential(model), Once.apply)
    with pytest.raises(camplug.LayerError, match="has no second derivative, which ShapleyCAM needs; take one later"):
        camplug.ShapleyCAM(behind).maps(x, 1)
