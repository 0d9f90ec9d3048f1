"""Propagation by attention against loops over the patches of a transformer written out step by step."""

from __future__ import annotations

import awkward
import feature_maps
import manual_vit
import pytest
import torch
from reference import relative_error

import camplug
from camplug.explain.propagate_attention import balance_attention


def slow_affinity(model, image, last):
    _, _, seen = manual_vit.run(model, image)
    prefix = len(seen[0][0][0]) - 6
    mean = sum(a.detach()[h, prefix:, prefix:] for a, *_ in seen[-last:] for h in range(2)) / (2 * last)
    for _ in range(3):
        mean = torch.stack([mean[:, j] / mean[:, j].sum() for j in range(6)], 1)
        mean = torch.stack([mean[i] / mean[i].sum() for i in range(6)])
    return (mean + mean.T) / 2


@pytest.mark.parametrize("options", [{}, {"class_token": False, "global_pool": "avg"}], ids=["class token", "average"])
def test_equals_the_slow_reference(options, device):
    model, x = manual_vit.make(**options), torch.randn(2, 3, 16, 24).double()
    twin = manual_vit.make(**options).to(device)
    inner = camplug.GradCAM(twin, "blocks.1")
    got = camplug.PropagateAttention(inner, last=2, steps=3).maps(x.to(device), [[0, 2], [1]])
    found = inner.maps(x.to(device), [[0, 2], [1]])
    for i, maps in enumerate(found):
        b = slow_affinity(model, x[i : i + 1].clone(), 2)
        for k, one in enumerate(maps):
            spread = one.cpu().reshape(2, 8, 3, 8).mean((1, 3)).flatten()
            for _ in range(3):
                spread = torch.stack([sum(b[p, q] * spread[q] for q in range(6)) for p in range(6)])
            assert relative_error(got[i][k], feature_maps.finish(spread.view(2, 3), (16, 24))) <= 1e-9
    assert camplug.create("PropagateAttention(LeGrad, None, 1)", twin).maps(x.to(device)).shape == (2, 16, 24)


def test_balanced_rows_sum_to_one():
    b = balance_attention(torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0)).double() + 0.1)
    torch.testing.assert_close(b, b.transpose(1, 2))
    torch.testing.assert_close(b.sum(2), torch.ones(2, 5).double(), rtol=0, atol=1e-3)
    assert not balance_attention(torch.zeros(1, 2, 2)).any()


def test_refusals():
    model = awkward.FeatureModule().eval()
    with pytest.raises(camplug.LayerError, match="PropagateAttention reads the attention of transformers, and this"):
        camplug.PropagateAttention(camplug.GradCAM(model)).maps(torch.randn(1, 3, 12, 12), 0)
    with pytest.raises(camplug.InputError, match="last=0, steps=2; give whole numbers of at least 1"):
        camplug.PropagateAttention(camplug.GradCAM(model), 0)
