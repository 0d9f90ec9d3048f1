"""LPCAM and its prototypes: the formulas against numbers by hand and a loop, the fit on two planted textures."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import camplug
from camplug import LPCAM, InputError, LocalPrototypes, ModelError, TargetError, fit_prototypes
from camplug.explain.cam import read_pooled_map
from camplug.explain.inputs import Batch
from camplug.explain.local_prototypes import PrototypeFitter, _Sample, compute_local_centres
from camplug.explain.lpcam import list_files, lpcam


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


class Net(nn.Module):
    """Features are the pixels' positive part; class c reads channel c."""

    class_names = ("red", "green", "blue")
    pretrained_cfg: ClassVar = {"input_size": (3, 8, 8), "mean": (0.0,) * 3, "std": (1.0,) * 3}

    def __init__(self):
        super().__init__()
        self.features, self.fc = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3, 3)
        with torch.no_grad():
            self.features.weight.copy_(torch.eye(3)[:, :, None, None])
            self.fc.weight.copy_(12 * torch.eye(3))
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(self.features(x).relu().mean((2, 3)))


@pytest.fixture
def model(device):
    return Net().double().eval().to(device)


def test_vectors_and_map_by_hand(device):
    """Prototypes (1, 0) and (0, 2), context (3, 4): v = (.5, .5) - (.6, .8) = (-.1, -.3); without context (.5, .5)."""
    p = LocalPrototypes(
        [torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(0, 2)],
        [torch.tensor([[3.0, 4.0]]), torch.zeros(0, 2), torch.tensor([[1.0, 0.0]])],
    )
    vectors = p.make_vectors()
    torch.testing.assert_close(vectors, torch.tensor([[-0.1, -0.3], [0.5, 0.5], [0.0, 0.0]]))
    f = torch.tensor([[[[3.0, 0.0, -5.0]], [[4.0, 0.0, 0.0]]]]).to(device)
    got = lpcam(f, vectors[1:2].to(device))  # (3 + 4) / 5 / 2; no features; below 0
    torch.testing.assert_close(got.cpu(), torch.tensor([[[0.7, 0.0, 0.0]]]))


def test_the_map_is_the_mean_of_cosines(model, device):
    generator = torch.Generator().manual_seed(0)
    own, context = torch.rand(3, 4, 3, generator=generator).double(), torch.rand(3, 2, 3, generator=generator).double()
    x = torch.rand(2, 3, 5, 6, generator=generator).double().to(device)
    got = LPCAM(model, LocalPrototypes(list(own), list(context)), normalize=None).maps(x, [[2, 0], [1]])
    for image, row, maps in zip(x.cpu().numpy(), [[2, 0], [1]], got, strict=True):
        for c, one in zip(row, maps.cpu().numpy(), strict=True):
            for i in range(5):
                for j in range(6):
                    f = image[:, i, j]
                    want = np.mean([cosine(f, p) for p in own[c].numpy()])
                    want -= np.mean([cosine(f, b) for b in context[c].numpy()])
                    assert one[i, j] == pytest.approx(max(want, 0), abs=1e-12)


def test_centres_are_means_of_clusters_and_have_the_heads_probability():
    """Directions (1, 0) and (0, 1), of lengths 1 and 3, 2 and 4: the centres (2, 0) and (0, 3)."""
    f = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 4.0]])
    centres, p = compute_local_centres(f, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([0.0, 1.0]), clusters=2)
    order = centres[:, 1].argsort()
    torch.testing.assert_close(centres[order], torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    want = torch.tensor([[2.0, 1.0], [0.0, 1.0]]).exp()
    torch.testing.assert_close(p[order], want / want.sum(1, keepdim=True))


def test_a_sample_of_parts_is_uniform_and_keeps_the_order():
    sample, few = _Sample(10, 0), _Sample(10, 0)
    for start in range(0, 100, 7):
        sample.add(torch.arange(start, min(start + 7, 100)).float()[:, None])
    few.add(torch.arange(6.0)[:, None])
    rows = sample.get().flatten()
    assert len(rows) == 10
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert rows.max() > 50  # not the first ten
    assert few.get().flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert _Sample(10, 0).get() is None


def halves(left, right):
    """A photograph of 8x8 pixels of two colours."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4], pixels[:, 4:] = left, right
    return pixels


def test_prototypes_of_planted_colours(model):
    """Red and orange belong to class red, grey is its context (p = 1/3), and no image shows blue."""
    red, orange, grey, green = (250, 0, 0), (250, 120, 0), (20, 20, 20), (0, 250, 0)
    samples = [(halves(red, grey), ["red"]), (halves(orange, grey), [0]), (halves(green, green), ["green"])]
    found = fit_prototypes(model, samples, clusters=2)
    assert [len(p) for p in found.positive] == [2, 1, 0]
    ordered = found.positive[0][found.positive[0][:, 1].argsort()] * 255
    np.testing.assert_allclose(ordered, [red, orange], atol=1e-3)
    assert [len(p) for p in found.context] == [1, 0, 0]
    np.testing.assert_allclose(found.context[0][0] * 255, grey, atol=1e-3)
    maps = LPCAM(model, found, normalize=None).explain(halves(orange, grey), "red").maps[0]
    unit = [np.array(c) / np.linalg.norm(c) for c in (red, orange, grey)]
    want = unit[1] @ ((unit[0] + unit[1]) / 2 - unit[2])
    assert float(maps[0, 0]) == pytest.approx(want, abs=1e-4)
    assert float(maps[0, 7]) == 0


def test_a_class_keeps_its_best_centre(model):
    found = fit_prototypes(model, [(halves((20, 20, 20), (30, 31, 30)), [1])], clusters=2)
    assert len(found.positive[1]) == 1  # neither is above .9
    np.testing.assert_allclose(found.positive[1][0] * 255, (30, 31, 30), atol=1e-3)


def test_files(model, tmp_path):
    p = LocalPrototypes([torch.rand(2, 3), torch.rand(1, 3), torch.zeros(0, 3)], [torch.rand(1, 3)] * 3)
    p.save(tmp_path / "p.npz")
    read = LocalPrototypes.load(tmp_path / "p.npz")
    for a, b in zip([*p.positive, *p.context], [*read.positive, *read.context], strict=True):
        assert torch.equal(a, b)
    made = camplug.create(f"Propagate(LPCAM(prototypes={str(tmp_path / 'p.npz')!r}))", model)
    assert list_files(made) == [str(tmp_path / "p.npz")]
    assert list_files(camplug.CAM(model)) == []
    (tmp_path / "bad.npz").write_bytes(b"PK no")
    np.savez(tmp_path / "other.npz", x=np.zeros(1))
    for name in ("bad.npz", "other.npz"):
        with pytest.raises(InputError, match=rf"{name}' cannot be read \(no file of prototypes\); make it with"):
            LPCAM(model, tmp_path / name)
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        LPCAM(model, "missing.npz")


def test_refusals(model, device):
    p = LocalPrototypes([torch.rand(2, 3), torch.rand(1, 3), torch.zeros(0, 3)], [torch.zeros(0, 3)] * 3)
    x = torch.rand(1, 3, 4, 4).double().to(device)
    with pytest.raises(
        InputError, match="LPCAM needs prototypes=, made of training images by `camplug fit-prototypes`"
    ):
        camplug.create("LPCAM", model)
    with pytest.raises(InputError, match="no evidence against a class"):
        LPCAM(model, p, evidence="negative")
    with pytest.raises(TargetError, match="no evidence against a class"):
        LPCAM(model, p).maps(x, [[camplug.Against(0)]])
    with pytest.raises(TargetError, match="there are no prototypes of class 'blue': no training image showed it"):
        LPCAM(model, p).maps(x, 2)
    two = LocalPrototypes([torch.rand(2, 5)] * 2, [torch.zeros(0, 5)] * 2)
    with pytest.raises(ModelError, match="are of 2 classes and 5 channels, and the model has 3 and 3"):
        LPCAM(model, two).maps(x, 0)
    with pytest.raises(InputError, match="there are no training images"):
        fit_prototypes(model, [])
    with pytest.raises(InputError, match=r"clusters=0, max_positions=10000: give"):
        fit_prototypes(model, [], clusters=0)
    with pytest.raises(InputError, match=r"threshold=1\.5, probability=0\.9"):
        fit_prototypes(model, [], threshold=1.5)
    with pytest.raises(TargetError, match="class 7 is outside the model's 3 classes"):
        PrototypeFitter(camplug.CAM(model)).add(halves((9, 9, 9), (9, 9, 9)), [7])
    assert "lpcam" not in camplug.list_methods()
    assert "lpcam" in camplug.list_methods(fitted=True)


def test_the_pooled_map_is_that_of_the_head(device):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    x = torch.randn(2, 3, 6, 7)
    features, head = read_pooled_map(camplug.CAM(net.to(device)), Batch(x.to(device)))
    torch.testing.assert_close(features.cpu(), F.relu(net[0].cpu()(x)))
    torch.testing.assert_close(head.weight.cpu(), net[4].weight.detach().cpu())
