"""Normalised class maps and the classification loss: by hand, and against slow loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.classifier import classification_loss, normalize_maps

_on_the_device = everywhere("classification_loss", "normalize_maps")


def test_maps_by_hand():
    maps = torch.tensor([[[[2.0, -3.0], [4.0, 1.0]], [[5.0, 0.0], [0.0, 0.0]]]])
    found = normalize_maps(maps, torch.tensor([[1, 0]]), eps=0.0)
    assert found[0, 0].tolist() == [[0.5, 0.0], [1.0, 0.25]]
    assert not found[0, 1].any()
    assert normalize_maps(maps, eps=0.0)[0, 1].tolist() == [[1, 0], [0, 0]]


def test_maps_without_a_positive_value_are_zero_and_have_a_gradient():
    maps = -torch.rand(2, 3, 4, 4)
    maps.requires_grad_()
    found = normalize_maps(maps, torch.ones(2, 3))
    assert not found.any()
    found.sum().backward()
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("present", [torch.ones(2, 2), torch.ones(3)])
def test_maps_refuse_labels_that_do_not_fit(present):
    with pytest.raises(InputError, match=r"class maps \[1, 2, 4, 4\] and labels"):
        normalize_maps(torch.zeros(1, 2, 4, 4), present)


@pytest.mark.parametrize("focal", [0.0, 2.0, 1.5])
def test_loss_equals_a_loop(focal):
    logits = torch.randn(4, 5, dtype=torch.double)
    present = (torch.rand(4, 5) > 0.6).double()
    total = 0.0
    for z, y in zip(logits.flatten().tolist(), present.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        total -= y * math.log(p) + p**focal * (1 - y) * math.log(1 - p)
    assert classification_loss(logits, present, focal=focal).item() == pytest.approx(total / 20, rel=1e-12)


def test_loss_is_torchs_own_without_focus():
    logits, present = torch.randn(4, 5), torch.eye(4, 5)
    assert torch.isclose(classification_loss(logits, present), F.multilabel_soft_margin_loss(logits, present))


def test_loss_by_hand():
    # absent at z = 0: p = 1/2, weighed by 1/4: (ln 2) / 4; present at z = 0: ln 2
    assert classification_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), focal=2).item() == pytest.approx(
        math.log(2) * 1.25 / 2
    )


def test_loss_stays_finite_at_the_extremes():
    logits = torch.tensor([[500.0, -500.0]], requires_grad=True)
    loss = classification_loss(logits, torch.tensor([[0.0, 1.0]]), focal=2)
    assert loss.item() == pytest.approx(500)
    loss.backward()
    assert logits.grad.isfinite().all()


def test_loss_refuses_labels_that_do_not_fit():
    with pytest.raises(InputError, match=r"logits \[2, 3\] and labels \[2, 4\]"):
        classification_loss(torch.zeros(2, 3), torch.zeros(2, 4))
