"""FEM and KPCA-CAM, which read activations alone, against numbers by hand and scikit-learn."""

from __future__ import annotations

import awkward
import feature_maps
import numpy as np
import pytest
import torch
from reference import relative_error

import camplug
from camplug.explain import kpca_cam as kpca_module
from camplug.explain.fem import fem
from camplug.explain.kpca_cam import kpca_cam


def test_fem_by_hand():
    a = torch.tensor([[[[1.0, 1.0, 1.0, 5.0]], [[0.0, 4.0, 0.0, 0.0]], [[-3.0, 1.0, -3.0, -3.0]]]])
    # means 2, 1, -2; deviations sqrt(3); above mean + 1 deviation: the fourth, the second, the second position
    torch.testing.assert_close(fem(a, 1.0), torch.tensor([[[0.0, 0.0, 0.0, 2.0]]]))
    torch.testing.assert_close(fem(a[:, :2], 1.0), torch.tensor([[[0.0, 1.0, 0.0, 2.0]]]))
    assert fem(a, 2.0).abs().max() == 0


@pytest.mark.parametrize("gamma", [None, 0.3])
def test_kpca_cam_equals_scikit_learn(gamma):
    decomposition = pytest.importorskip("sklearn.decomposition")
    a = torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    for i in range(2):
        rows = a[i].flatten(1).T.numpy()
        pca = decomposition.KernelPCA(1, kernel="sigmoid", gamma=gamma, coef0=1)
        component = pca.fit_transform(rows - rows.mean(0))[:, 0]
        component = component * np.sign(component @ rows.sum(1))
        want = torch.from_numpy(component.clip(min=0)).view(4, 5)
        torch.testing.assert_close(kpca_cam(a, gamma)[i], want, rtol=1e-7, atol=1e-9)


def test_many_positions_take_the_other_solver(monkeypatch):
    a = torch.randn(1, 6, 9, 9, generator=torch.Generator().manual_seed(0)).double()
    want = kpca_cam(a)
    monkeypatch.setattr(kpca_module, "SMALL", 8)
    torch.testing.assert_close(kpca_cam(a), want, rtol=1e-7, atol=1e-9)


def test_kpca_cam_of_two_kinds_of_positions():
    """Its first component parts them, and shows the kind with the larger features."""
    a = torch.zeros(1, 3, 1, 4)
    a[0, :, 0, 1] = a[0, :, 0, 2] = 2.0
    got = kpca_cam(a)[0, 0]
    assert got[0] == got[3] == 0
    torch.testing.assert_close(got[1], got[2])
    assert got[1] > 0


def test_a_constant_map_is_empty():
    assert kpca_cam(torch.ones(1, 3, 2, 2)).abs().max() < 1e-6


@pytest.mark.parametrize("method", ["fem", "kpcacam", "eigencam"])
def test_of_the_last_map_for_every_class(method, device):
    model, x = feature_maps.make(device)
    formula = {"fem": fem, "kpcacam": kpca_cam}.get(method)
    got = camplug.create(method, model).maps(x, [[0, 2], [1]])
    assert torch.equal(got[0][0], got[0][1])
    for i in range(2):
        if formula:
            want = feature_maps.finish(formula(model.features(x[i : i + 1]).detach())[0])
            assert relative_error(got[i][0], want) <= 1e-9
    with pytest.raises(camplug.InputError, match="shows the same for every class"):
        camplug.create(method, model, evidence="negative")


def test_refusals():
    model = awkward.FeatureModule()
    with pytest.raises(camplug.InputError, match="gamma=0; give a number above 0"):
        camplug.KPCACAM(model, gamma=0)
    with pytest.raises(camplug.InputError, match="deviations='two'; give a number of standard deviations"):
        camplug.FEM(model, deviations="two")
