"""Affinity from features: by hand, against gathered pairs, its gradient, and what is kept for it."""

from __future__ import annotations

import math

import pytest
import torch

from camplug.errors import InputError
from camplug.wsss.affinity import affinity_loss, find_pairs, make_half_disc
from camplug.wsss.affinitynet import feature_affinity

SIZES = [(7, 6), (1, 9), (9, 1), (2, 2), (1, 1), (5, 12)]


def gathered(features, radius):
    """All pairs one by one, as indices into the grid."""
    n, _, h, w = features.shape
    planes = []
    for dy, dx in make_half_disc(radius):
        plane = [features.new_zeros(n)] * (h * w)
        for y in range(h - dy):
            for x in range(max(0, -dx), min(w, w - dx)):
                distance = (features[:, :, y, x] - features[:, :, y + dy, x + dx]).abs().mean(1)
                plane[y * w + x] = torch.exp(-distance)
        planes.append(torch.stack(plane, 1).view(n, h, w))
    return torch.stack(planes, 1)


def random_features(size, channels=3, n=2, dtype=torch.float64, device="cpu"):
    return torch.randn(n, channels, *size, dtype=dtype).to(device).requires_grad_()


def test_by_hand(device):
    """Two channels, 2x2 positions: mean differences 1, 3, 2, 1, 2 and 3."""
    features = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]], [[0.0, 1.0], [-2.0, 0.0]]]])
    affinity = feature_affinity(features.to(device), 2)
    assert make_half_disc(2) == ((0, 1), (1, -1), (1, 0), (1, 1))
    wanted = torch.zeros(1, 4, 2, 2)
    wanted[0, 0, :, 0] = torch.tensor([-1.0, -1.5]).exp()  # (0,0)-(0,1): 1, 1; (1,0)-(1,1): 1, 2
    wanted[0, 1, 0, 1] = math.exp(-2)  # (0,1)-(1,0): 1, 3
    wanted[0, 2, 0, :] = torch.tensor([-2.0, -1.5]).exp()  # (0,0)-(1,0): 2, 2; (0,1)-(1,1): 2, 1
    wanted[0, 3, 0, 0] = math.exp(-1.5)  # (0,0)-(1,1): 3, 0
    assert affinity.device.type == device.type
    torch.testing.assert_close(affinity.cpu(), wanted)


def test_loss_by_hand(device):
    """Three positions in a row, labels 0, 0, 1: one background pair, two of different classes."""
    features = torch.tensor([0.0, 0.5, 2.0]).view(1, 1, 1, 3).to(device)
    loss = affinity_loss(feature_affinity(features, 3), find_pairs(torch.tensor([[[0, 0, 1]]]).to(device), 3))
    different = -(math.log(1 + 1e-5 - math.exp(-1.5)) + math.log(1 + 1e-5 - math.exp(-2))) / (2 + 1e-5)
    background = -math.log(math.exp(-0.5) + 1e-5) / (1 + 1e-5)
    assert loss.item() == pytest.approx(background / 4 + different / 2, rel=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [2, 5])
def test_value_and_gradient_are_those_of_gathered_pairs(size, radius, device):
    features = random_features(size)
    weights = torch.rand(2, len(make_half_disc(radius)), *size, dtype=torch.float64)
    there = features.detach().to(device).requires_grad_()
    fast, slow = feature_affinity(there, radius), gathered(features, radius)
    torch.testing.assert_close(fast.cpu(), slow, atol=1e-12, rtol=0)
    one = torch.autograd.grad((fast * weights.to(device)).sum(), there)[0].cpu()
    (other,) = torch.autograd.grad((slow.requires_grad_() * weights).sum(), features, allow_unused=True)
    torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, atol=1e-12, rtol=0)


def test_float32_is_close(device):
    features = random_features((6, 7), channels=16)
    single = features.detach().float().to(device).requires_grad_()
    torch.testing.assert_close(feature_affinity(single, 5).cpu().double(), gathered(features, 5), atol=1e-6, rtol=0)


def test_gradcheck():
    features = random_features((4, 5), channels=2, n=1)
    assert torch.autograd.gradcheck(lambda x: feature_affinity(x, 3), features)


def test_equal_features_have_affinity_one_and_no_gradient(device):
    features = torch.ones(1, 4, 3, 3).to(device).requires_grad_()
    affinity = feature_affinity(features, 2)
    assert (affinity[:, 0, :, :2] == 1).all()
    affinity.sum().backward()
    assert not features.grad.any()


def test_features_and_affinities_are_all_that_is_kept(device):
    features, kept = random_features((10, 10), channels=64, device=device), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        affinity = feature_affinity(features, 5)
    assert sum(kept) == features.numel() + affinity.numel()


def test_nothing_is_kept_without_gradients():
    assert feature_affinity(random_features((3, 3)).detach(), 2).grad_fn is None


@pytest.mark.parametrize("features", [torch.zeros(1, 3, 3), torch.zeros(1, 0, 3, 3), torch.zeros(1, 2, 3, 3).long()])
def test_other_features_are_refused(features):
    with pytest.raises(InputError, match=r"N,C,h,w"):
        feature_affinity(features, 5)


def test_a_radius_without_neighbours_is_refused():
    with pytest.raises(InputError, match="radius=1"):
        feature_affinity(torch.zeros(1, 2, 3, 3), 1)
