"""RefineCAM, Smooth Grad-CAM++ and deep feature factorisation against loops over single images."""

from __future__ import annotations

import awkward
import feature_maps
import pytest
import torch
import torch.nn.functional as F
from reference import FORMULAS, record, relative_error

import camplug
from camplug.explain.dff import factorize_features, weigh_concepts
from camplug.explain.pixels import make_noise
from camplug.explain.smooth_gradcam_pp import smooth_grad_cam_pp


@pytest.mark.parametrize("base", ["gradcam++", "layercam"])
def test_refine_cam_multiplies_the_layers(base):
    model, x = feature_maps.make()
    got = camplug.RefineCAM(model, ["conv1", "conv2", "act"], base=base).maps(x, [1, 3])
    for i, c in enumerate([1, 3]):
        product = torch.ones(12, 16).double()
        for a, g in record(model, ["conv1", "conv2", "act"], x[i : i + 1], lambda y, c=c: y[:, c])[0]:
            m = FORMULAS[base](a[0], g[0])
            m = (m - m.min()) / (m.max() - m.min()) if m.max() > m.min() else m * 0
            product *= F.interpolate(m[None, None], (12, 16), mode="bilinear")[0, 0]
        assert relative_error(got[i], product / product.max()) <= 1e-9
    with pytest.raises(camplug.InputError, match="base='eigencam' computes no map of a layer from its activation and"):
        camplug.RefineCAM(model, base="eigencam")


def test_smooth_grad_cam_pp_equals_the_slow_reference(device):
    model, x = feature_maps.make(device)
    explainer = camplug.SmoothGradCAMPlusPlus(model, samples=3, noise=0.1, seed=4)
    got = explainer.maps(x, feature_maps.CLASSES)
    for i, classes in enumerate(feature_maps.CLASSES):
        image = x[i : i + 1]
        noise = list(make_noise(image, 0.1, 4, 3))
        for k, c in enumerate(classes):
            a, _ = feature_maps.read(model, image, lambda y, c=c: y[0, c])
            copies = [feature_maps.read(model, image + one, lambda y, c=c: y[0, c])[1] for one in noise]
            total = torch.zeros_like(a[0])
            for channel in range(len(a)):
                d1, d2, d3 = (sum(g[channel] ** p for g in copies) / 3 for p in (1, 2, 3))
                low = 2 * d2 + a[channel].sum() * d3
                alpha = torch.where(low != 0, d2 / low, 0)
                total += (alpha * d1.clamp_min(0)).sum() * a[channel]
            assert relative_error(got[i][k], feature_maps.finish(total)) <= 1e-9
    without = camplug.SmoothGradCAMPlusPlus(model, samples=1, noise=0).maps(x, 1)
    torch.testing.assert_close(without, camplug.GradCAMPlusPlus(model).maps(x, 1))


def test_smooth_grad_cam_pp_by_hand():
    a = torch.tensor([[[[1.0, 2.0]]]])
    first, second, third = (torch.tensor([[[[v, 0.0]]]]) for v in (2.0, 3.0, 1.0))
    # alpha = 3 / (2 * 3 + 1 * 3) = 1/3, w = 2/3
    torch.testing.assert_close(smooth_grad_cam_pp(a, first, second, third), torch.tensor([[[2 / 3, 4 / 3]]]))


def test_features_made_of_two_concepts_are_factorised():
    strengths = torch.tensor([[[[1.0, 0.0, 2.0]], [[0.0, 3.0, 0.0]]]]).double()
    concepts = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]).double()
    features = torch.einsum("nchw,ck->nkhw", strengths, concepts)
    h, w = factorize_features(features, 2, iterations=2000)
    assert h.shape == (1, 2, 1, 3)
    assert (h >= 0).all()
    assert (w >= 0).all()
    torch.testing.assert_close(torch.einsum("nchw,ck->nkhw", h, w), features, rtol=0, atol=1e-2)
    assert sorted((h[0].flatten(1) > 0.1).sum(1).tolist()) == [1, 2]
    assert factorize_features(torch.zeros(1, 3, 2, 2), 2)[0].abs().max() == 0


def test_weights_of_concepts_by_hand():
    strengths = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    concepts = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    gradient = torch.tensor([[[2.0, 0.0]], [[4.0, 2.0]]])  # means 1 and 3: weights 4 and relu(-2)
    torch.testing.assert_close(weigh_concepts(strengths, concepts, gradient), torch.tensor([[4.0, 8.0]]))


def test_deep_feature_factorisation_of_a_network(device):
    model, x = feature_maps.make(device)
    got = camplug.DeepFeatureFactorization(model, concepts=3).maps(x, feature_maps.CLASSES)
    for i, classes in enumerate(feature_maps.CLASSES):
        for k, c in enumerate(classes):
            a, g = feature_maps.read(model, x[i : i + 1], lambda y, c=c: y[0, c])
            strengths, concepts = factorize_features(a[None], 3)
            want = sum(
                max(float((concepts[j] * g.mean((1, 2))).sum()), 0) * strengths[0, j] for j in range(len(concepts))
            )
            assert relative_error(got[i][k], feature_maps.finish(want)) <= 1e-6
    with pytest.raises(camplug.InputError, match="concepts=0; give a whole number of at least 1"):
        camplug.DeepFeatureFactorization(awkward.FeatureModule(), concepts=0)
