"""Propagation: the formulas against loops, the wrapper against its parts, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import wrapped
from torch import nn

import camplug
from camplug.explain import propagate
from camplug.explain.fuse import normalize_map
from camplug.explain.propagate import make_unit_features, propagate_maps


def slow_unit(f):
    """[K,h,w] centred over the positions, then of length 1."""
    f = f.astype(np.float64)
    centred = f - f.reshape(len(f), -1).mean(1)[:, None, None]
    length = np.sqrt((centred**2).sum(0))
    return centred / np.where(length > 0, length, 1)


def slow_propagated(maps, f, power, reach=None):
    k, h, w = maps.shape
    out = np.zeros((k, h, w))
    for y in range(h):
        for x in range(w):
            total = 0.0
            for v in range(h):
                for u in range(w):
                    a, b = f[:, y, x].astype(np.float64), f[:, v, u].astype(np.float64)
                    lengths = np.sqrt((a**2).sum() * (b**2).sum())
                    s = max(a @ b / lengths, 0) ** power if lengths else 0.0
                    s *= np.exp(-((y - v) ** 2 + (x - u) ** 2) / max(h, w) ** 2 / 2 / reach**2) if reach else 1
                    out[:, y, x] += s * maps[:, v, u]
                    total += s
            out[:, y, x] /= total or 1
    return out


@pytest.mark.parametrize(("power", "reach"), [(1.0, None), (3.0, None), (2.0, 0.35)])
def test_formulas_against_loops(power, reach, device):
    f, maps = torch.randn(2, 5, 3, 4, dtype=torch.float64), torch.rand(2, 3, 4, dtype=torch.float64)
    units = make_unit_features(f.to(device))
    for i in range(2):
        np.testing.assert_allclose(units[i].cpu().numpy(), slow_unit(f[i].numpy()), atol=1e-12)
        got = propagate_maps(maps.to(device), units[i], power, reach).cpu().numpy()
        np.testing.assert_allclose(
            got, slow_propagated(maps.numpy(), slow_unit(f[i].numpy()), power, reach), atol=1e-12
        )


def test_two_regions_share_what_they_have(device):
    """By hand: features are +1 on three positions and -1 on one; evidence on one of the three is shared by these."""
    f = torch.tensor([[[1.0, 1.0], [1.0, -1.0]]]).to(device)
    got = propagate_maps(torch.tensor([[[0.9, 0.0], [0.0, 0.4]]]).to(device), f)
    torch.testing.assert_close(got.cpu(), torch.tensor([[[0.3, 0.3], [0.3, 0.4]]]))


def test_in_chunks_it_is_the_same(monkeypatch):
    f, maps = torch.randn(6, 5, 7), torch.rand(2, 5, 7)
    whole = propagate_maps(maps, f, reach=0.2)
    monkeypatch.setattr(propagate, "CHUNK", 100)
    torch.testing.assert_close(propagate_maps(maps, f, reach=0.2), whole)


def test_positions_without_features_are_zero():
    f = torch.ones(1, 4, 3, 3)  # every position has the mean's features
    assert make_unit_features(f).abs().max() == 0
    assert propagate_maps(torch.rand(2, 3, 3), make_unit_features(f)[0]).abs().max() == 0


class Stages(nn.Module):
    """Maps at strides 2, 4 and 8, and a head."""

    def __init__(self):
        super().__init__()
        self.two, self.four = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.eight, self.head = nn.Conv2d(6, 8, 3, 2, 1), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.eight(self.four(self.two(x).relu()).relu()).relu().mean((2, 3)))


@pytest.fixture
def model(device):
    torch.manual_seed(0)
    return Stages().double().eval().to(device)


@pytest.fixture
def x(device):
    return torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)).double().to(device)


@pytest.mark.parametrize("flip", [False, True])
def test_the_wrapper_is_its_parts(flip, model, x):
    inner = camplug.GradCAM(model)
    got = camplug.Propagate(inner, strides=(4, 8), zoom=1.5, flip=flip).maps(x, [[0, 2], [1]], (20, 30))

    def unit(image):
        four = model.four(model.two(image).relu())
        eight = model.eight(four.relu())
        return [make_unit_features(t) for t in (F.adaptive_avg_pool2d(four, (6, 9)), eight)]

    for i, classes in enumerate([[0, 2], [1]]):
        image = F.interpolate(x[i : i + 1], (48, 72), mode="bicubic", antialias=True)
        parts = unit(image)
        if flip:
            parts = [F.normalize(a + b.flip(-1), dim=1) for a, b in zip(parts, unit(image.flip(-1)), strict=True)]
        f = torch.cat(parts, 1)[0].detach()
        maps = F.adaptive_avg_pool2d(inner.maps(x[i : i + 1], [classes])[0], (6, 9))
        want = F.interpolate(propagate_maps(maps, f, 2.0, 0.4)[:, None], (20, 30), mode="bilinear")[:, 0]
        torch.testing.assert_close(got[i], normalize_map(want))


def test_no_image_knows_of_the_others(model, x):
    explainer = camplug.Propagate(camplug.FullyCAM(model), strides=(4,), zoom=1)
    both, apart = explainer.maps(x, 1), torch.cat([explainer.maps(x[i : i + 1], 1) for i in range(2)])
    torch.testing.assert_close(both, apart)


def test_the_grid_has_no_more_positions_than_allowed(model, x):
    explainer = camplug.Propagate(camplug.CAM(model), strides=(2,), zoom=1, max_positions=50)
    features = explainer.compute_features(camplug.explain.inputs.Batch(x))
    assert features.shape == (2, 4, 5, 8)  # 16 x 24 positions, shrunk by sqrt(50 / 384)


def test_an_image_without_classes(model, x):
    got = camplug.Propagate(camplug.CAM(model), strides=(4, 8)).maps(x, [[], [1]])
    assert [len(m) for m in got] == [0, 1]


def test_the_model_is_left_as_it_was(model, x):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    camplug.Propagate(camplug.CAM(model), strides=(4,)).maps(x, 0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_refusals(model, x):
    with pytest.raises(camplug.LayerError, match=r"strides=\(16,\): the layers of this model have strides 2, 4, 8;"):
        camplug.Propagate(camplug.CAM(model), strides=(16,)).maps(x, 0)
    with pytest.raises(camplug.InputError, match=r"strides=8; give numbers of pixels"):
        camplug.Propagate(camplug.CAM(model), strides=8)
    for wrong in ({"zoom": 0}, {"power": -1}, {"reach": 0}, {"max_positions": "many"}):
        with pytest.raises(camplug.InputError, match="give numbers above 0"):
            camplug.Propagate(camplug.CAM(model), **wrong)
    with pytest.raises(camplug.InputError, match="Propagate wraps an explainer"):
        camplug.Propagate(model)


def test_a_model_of_one_size_is_told_to_leave_the_zoom(model, x):
    class OneSize(Stages):
        def forward(self, x):
            assert x.shape[2] == 32, "32 pixels only"
            return super().forward(x)

    rigid = OneSize().double().eval().to(x.device)
    with pytest.raises(camplug.ModelError, match=r"of 64x96 pixels \(32 pixels only\), which is what zoom= asks for"):
        camplug.Propagate(camplug.CAM(rigid), strides=(8,)).maps(x, 0)
    assert camplug.Propagate(camplug.CAM(rigid), strides=(8,), zoom=1).maps(x, 0).shape == (2, 32, 48)


def test_by_name():
    made = camplug.create("Propagate(MultiView(CAM, scales=(2,)), power=2)", wrapped.Means())
    assert (made.name, made.power, made.strides) == ("propagate(multiview(cam))", 2, (8, 16))


def test_a_small_first_image_changes_nothing(model, x):
    large = torch.randn(1, 3, 64, 96, dtype=x.dtype, device=x.device)
    used = camplug.Propagate(camplug.CAM(model), strides=(2, 4, 8), zoom=1)
    used.maps(x[:, :, :8, :8], 0)
    fresh = camplug.Propagate(camplug.CAM(model), strides=(2, 4, 8), zoom=1)
    assert torch.equal(used.maps(large, 0), fresh.maps(large, 0))
