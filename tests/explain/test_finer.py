"""Finer-CAM: the contrast by hand and by a loop, the wrapper against callables, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from wrapped import Means, model_and_batch, same

import camplug
from camplug import FinerCAM, FullyCAM, GradCAM, InputError, TargetError
from camplug.explain.finer import compute_contrast


def slow_contrast(y, c, references, strength):
    others = sorted((d for d in range(len(y)) if d != c), key=lambda d: (abs(y[d] - y[c]), d))[:references]
    p = np.exp(y) / np.exp(y).sum()
    return y[c] - strength * sum(p[d] * y[d] for d in others) / sum(p[d] for d in others)


@pytest.mark.parametrize(("references", "strength"), [(1, 1.0), (3, 0.6), (20, 0.25), (2, 0.0)])
def test_contrast_against_a_loop(references, strength, device):
    y = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = compute_contrast(y.to(device), torch.tensor([0, 5, 2, 2]).to(device), references, strength)
    want = [slow_contrast(row, c, references, strength) for row, c in zip(y.numpy(), [0, 5, 2, 2], strict=True)]
    np.testing.assert_allclose(got.cpu().numpy(), want, atol=1e-12)


def test_weights_are_constants():
    y = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    compute_contrast(y, torch.tensor([0]), references=2, strength=1.0).sum().backward()
    e = torch.tensor([1.0, 0.0]).exp()
    torch.testing.assert_close(y.grad[0], torch.cat([torch.tensor([1.0]), -e / e.sum()]))


@pytest.mark.parametrize("inner", [GradCAM, FullyCAM])
def test_is_the_explainer_of_the_contrast(inner, device):
    model, x = model_and_batch(3, device=device)
    wanted = [[3, 0], [], [1]]
    result = FinerCAM(inner(model), references=2, strength=0.5).run(x, wanted, (7, 9))
    assert result.targets.classes == ((3, 0), (), (1,))
    with torch.no_grad():
        torch.testing.assert_close(result.logits, model(x))
    for i, row in enumerate(wanted):
        assert result.maps[i].shape == (len(row), 7, 9)
        for c, got in zip(row, result.maps[i], strict=True):
            chosen = torch.tensor([c]).to(x.device)
            want = inner(model).maps(x[i : i + 1], lambda y, c=chosen: compute_contrast(y, c, 2, 0.5), (7, 9))[0]
            torch.testing.assert_close(got, want)


def test_without_strength_it_is_the_explainer(device):
    model, x = model_and_batch(2, device=device)
    assert same(FinerCAM(GradCAM(model), strength=0.0).maps(x), GradCAM(model).maps(x))
    assert not same(FinerCAM(GradCAM(model)).maps(x, 1), GradCAM(model).maps(x, 1))


def test_refusals(device):
    model, x = model_and_batch(1, device=device)
    with pytest.raises(TargetError, match="use GradCAM for other scores"):
        FinerCAM(camplug.CAM(model)).maps(x, 0)
    with pytest.raises(TargetError, match="not the evidence against a class"):
        FinerCAM(GradCAM(model)).maps(x, [[camplug.Against(0)]])
    with pytest.raises(TargetError, match="class 99 is outside the model's 5 classes"):
        FinerCAM(GradCAM(model)).maps(x, 99)
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)).to(x)
    with pytest.raises(TargetError, match="compares classes, and the model has one"):
        FinerCAM(GradCAM(one, "0")).maps(x, 0)
    for references in (0, 1.5, "3", True):
        with pytest.raises(InputError, match="give a whole number of at least 1"):
            FinerCAM(GradCAM(Means()), references)
    for strength in (-1, "a", float("inf")):
        with pytest.raises(InputError, match=r"give a number of at least 0, for instance 0\.6"):
            FinerCAM(GradCAM(Means()), strength=strength)
