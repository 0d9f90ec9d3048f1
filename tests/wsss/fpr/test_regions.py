"""Masks of class maps and mean features over them."""

from __future__ import annotations

import pytest
import torch
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.fpr import make_class_masks, masked_mean

_on_the_device = everywhere("make_class_masks", "masked_mean")


def test_mask_golden_numbers():
    """2 / (20 + eps) is just below 0.1, 3 / 20 is above; -5 counts as 0."""
    maps = torch.tensor([[[[20.0, 2.0], [3.0, -5.0]], [[-1.0, -2.0], [0.0, -3.0]]]])
    assert make_class_masks(maps).tolist() == [[[[True, False], [True, False]], [[False, False], [False, False]]]]
    assert make_class_masks(maps, theta=0.0)[0, 0].tolist() == [[True, True], [True, False]]


def test_a_map_as_small_as_eps_lights_nothing():
    """1e-6 / (1e-6 + 1e-5) = 0.0909."""
    assert not make_class_masks(torch.full((1, 1, 2, 2), 1e-6)).any()


def test_masked_mean_golden_numbers():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, -2.0], [4.0, 8.0]]]])
    mask = torch.tensor([[[True, False], [False, True]]])
    assert masked_mean(features, mask).tolist() == [[2.5, 4.0]]
    both = torch.stack([mask, torch.zeros_like(mask)], 1)
    assert masked_mean(features, both).tolist() == [[[2.5, 4.0], [0.0, 0.0]]]


def test_masked_mean_equals_a_loop():
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 6, 4, 5) > 0.5
    mask[1, 2] = False
    rows = []
    for n in range(2):
        for c in range(6):
            inside = [features[n, :, y, x] for y in range(4) for x in range(5) if mask[n, c, y, x]]
            rows.append(sum(inside) / len(inside) if inside else features[n, :, 0, 0] * 0)
    expected = torch.stack(rows).view(2, 6, 3)
    found = masked_mean(features, mask)
    weight = torch.randn_like(expected)
    (one,) = torch.autograd.grad((found * weight).sum(), features)
    (other,) = torch.autograd.grad((expected * weight).sum(), features)
    assert torch.allclose(found, expected)
    assert torch.allclose(one, other)


def test_masked_mean_is_precise_in_autocast_and_from_half_precision(device):
    features = torch.full((1, 1, 64, 64), 100.0, dtype=torch.float16)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = masked_mean(features, torch.ones(1, 64, 64, dtype=torch.bool))
    assert found.dtype == torch.float32
    assert float(found) == 100


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: make_class_masks(torch.zeros(2, 2)), r"class maps are \[N,C,h,w\]; got \[2, 2\]"),
        (
            lambda: make_class_masks(torch.zeros(1, 1, 2, 2), 1.0),
            r"theta=1\.0; the threshold of class maps lies in \[0, 1\)",
        ),
        (lambda: masked_mean(torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2)), r"features \[1, 1, 2, 2\] and masks"),
    ],
)
def test_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
