"""The Gaussian: weights by hand and a loop over neighbours."""

from __future__ import annotations

import math

import pytest
import torch
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.rpnet import smooth_maps

_on_the_device = everywhere("smooth_maps")


def slow_smoothed(maps, sigma, window, border):
    n, c, h, w = maps.shape
    reach = window // 2
    steps = range(-reach, reach + 1)
    total = sum(math.exp(-(dy * dy + dx * dx) / (2 * sigma * sigma)) for dy in steps for dx in steps)
    planes = []
    for i in range(n):
        for k in range(c):
            for y in range(h):
                for x in range(w):
                    value, weight = maps.new_zeros(()), 0.0
                    for dy in steps:
                        for dx in steps:
                            if 0 <= y + dy < h and 0 <= x + dx < w:
                                g = math.exp(-(dy * dy + dx * dx) / (2 * sigma * sigma)) / total
                                value, weight = value + g * maps[i, k, y + dy, x + dx], weight + g
                    planes.append(value / weight if border == "normalized" else value)
    return torch.stack(planes).view(maps.shape)


def test_golden():
    """3 positions, sigma 1: neighbours weigh e^-1/2 = 0.60653 of the centre, so (0.27407, 0.45186, 0.27407)."""
    row = torch.tensor([[[[1.0, 0.0, 0.0]]]], dtype=torch.float64)
    side = math.exp(-0.5)
    share = 1 / (1 + 2 * side)
    rows = share  # a row is one high: only the centre weight of the other direction meets it
    zero = smooth_maps(row, 1, 3, "zero")
    assert zero.flatten().tolist() == pytest.approx([share * rows, side * share * rows, 0])
    assert zero.flatten().tolist() == pytest.approx([0.45186**2, 0.27407 * 0.45186, 0], rel=1e-4)
    normalized = smooth_maps(row, 1, 3)
    assert normalized.flatten().tolist() == pytest.approx([1 / (1 + side), side / (1 + 2 * side), 0])


@pytest.mark.parametrize("border", ["normalized", "zero"])
@pytest.mark.parametrize("size", [(4, 6), (2, 1), (7, 3)])
def test_equals_a_loop_in_value_and_gradient(border, size):
    maps = torch.rand(2, 2, *size, dtype=torch.float64, requires_grad=True)
    fast, slow = smooth_maps(maps, 3, 5, border), slow_smoothed(maps, 3, 5, border)
    torch.testing.assert_close(fast, slow)
    weights = torch.randn_like(slow)
    found, expected = (torch.autograd.grad((p * weights).sum(), maps)[0] for p in (fast, slow))
    torch.testing.assert_close(found, expected)


def test_borders_of_a_constant_map():
    ones = torch.ones(1, 1, 9, 9)
    torch.testing.assert_close(smooth_maps(ones), ones)
    dark = smooth_maps(ones, border="zero")[0, 0]
    assert float(dark[4, 4]) == pytest.approx(1)
    assert float(dark[0, 0]) < 0.5
    assert smooth_maps(torch.full((1, 1, 1, 1), 0.7)).item() == pytest.approx(0.7)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"sigma": 0.0}, r"sigma=0\.0; give a number above 0"),
        ({"window": 4}, r"window=4; give an odd number"),
        ({"window": -1}, r"window=-1; give an odd number"),
        ({"border": "reflect"}, r"""border='reflect'; give "normalized" or "zero"."""),
        ({"maps": torch.rand(3, 3)}, r"maps are torch.float32 \[3, 3\]; give floating-point maps \[N,C,h,w\]"),
        ({"maps": torch.ones(1, 1, 3, 3, dtype=torch.int64)}, r"maps are torch.int64"),
    ],
)
def test_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        smooth_maps(**({"maps": torch.rand(1, 1, 3, 3)} | options))
