"""RPNet's loss and its target: golden numbers and slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.rpnet import average_maps, self_supervised_loss

_on_the_device = everywhere("average_maps", "self_supervised_loss")


def slow_shares(maps, present):
    n, c, h, w = maps.shape
    shares = {}
    for i in range(n):
        for k in range(c):
            values = {(y, x): maps[i, k, y, x] for y in range(h) for x in range(w)}
            values = {p: v if v > 0 else v * 0 for p, v in values.items()}
            peak = max(values.values(), key=lambda v: v.item())
            for p, v in values.items():
                shares[i, k, p] = v / (peak + 1e-5) * float(present[i, k])
    return shares


def slow_loss(target, plain, present):
    s, r = slow_shares(target, present), slow_shares(plain, present)
    total = plain.new_zeros(())
    for key in s:
        total = total + (s[key] - r[key]) ** 2
    return total / len(s)


def slow_resized(plane, h, w):
    """Bilinear, corners not aligned."""
    rows, columns = plane.shape
    out = []
    for y in range(h):
        v = min(max((y + 0.5) * rows / h - 0.5, 0), rows - 1)
        for x in range(w):
            u = min(max((x + 0.5) * columns / w - 0.5, 0), columns - 1)
            a, b = math.floor(v), math.floor(u)
            c, d = min(a + 1, rows - 1), min(b + 1, columns - 1)
            s, t = v - a, u - b
            top = (1 - t) * plane[a, b] + t * plane[a, d]
            out.append((1 - s) * top + s * ((1 - t) * plane[c, b] + t * plane[c, d]))
    return torch.stack(out).view(h, w)


def test_loss_golden():
    """Class 0: (1, 1/2) against (1/4, 1), the negative cut; differences 3/4 and -1/2. Class 1 is absent.

    (9/16 + 1/4) / 4 = 0.203125 over two classes and two positions; with class 1, equal up to its factor, the same.
    """
    target = torch.tensor([[[[4.0, 2.0]], [[1.0, -3.0]]]], dtype=torch.float64)
    plain = torch.tensor([[[[0.5, 2.0]], [[7.0, -1.0]]]], dtype=torch.float64)
    assert float(self_supervised_loss(target, plain, torch.tensor([[1, 0]]))) == pytest.approx(0.203125, rel=1e-4)
    assert float(self_supervised_loss(target, plain, torch.tensor([[1, 1]]))) == pytest.approx(0.203125, rel=1e-4)


def test_loss_equals_a_loop_in_value_and_gradient():
    target, plain = (torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    present = torch.tensor([[1, 0, 1], [0, 1, 1]])
    fast, slow = self_supervised_loss(target, plain, present), slow_loss(target, plain, present)
    assert fast.item() == pytest.approx(slow.item(), rel=1e-12)
    found, expected = (torch.autograd.grad(value, (target, plain)) for value in (fast, slow))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
        assert one[0, 1].abs().max() == 0  # an absent class


@pytest.mark.parametrize("value, shown", [(0.0, 1), (-2.0, 1), (1.0, 0), (1.0, 1)])
def test_flat_maps_cost_nothing_and_have_finite_gradients(value, shown):
    plain = torch.full((2, 3, 1, 1), value, requires_grad=True)
    loss = self_supervised_loss(torch.full((2, 3, 1, 1), value), plain, torch.full((2, 3), shown))
    loss.backward()
    assert loss.item() == 0
    assert plain.grad.isfinite().all()


def test_loss_of_half_precision_is_float32():
    target, plain = torch.rand(2, 1, 2, 3, 3).mul(100).half()
    loss = self_supervised_loss(target, plain, torch.ones(1, 2))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(float(slow_loss(target.double(), plain.double(), torch.ones(1, 2))), rel=1e-5)


def test_average_golden():
    """relu(1, -1) is (1, 0) and not resized; (0, 4) -> 4 columns: 0, 1, 3, 4; of one position everywhere 6."""
    maps = [torch.tensor([[[row]]]) for row in ([1.0, -1.0, 2.0, 3.0], [0.0, 4.0], [6.0])]
    expected = [(1 + 0 + 6) / 3, (0 + 1 + 6) / 3, (2 + 3 + 6) / 3, (3 + 4 + 6) / 3]
    assert average_maps(maps, (1, 4)).flatten().tolist() == pytest.approx(expected)


def test_average_equals_a_loop_in_value_and_gradient():
    sizes = ((3, 4), (2, 2), (5, 6), (6, 8))
    maps = [torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True) for size in sizes]
    planes = [sum(slow_resized(m[i, k] * (m[i, k] > 0), 3, 4) for m in maps) / 4 for i in range(2) for k in range(2)]
    fast, slow = average_maps(maps, (3, 4)), torch.stack(planes).view(2, 2, 3, 4)
    torch.testing.assert_close(fast, slow)
    weights = torch.randn_like(slow)
    found, expected = (torch.autograd.grad((p * weights).sum(), maps) for p in (fast, slow))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_only_scales_with_a_graph_learn():
    one = torch.rand(1, 2, 3, 3, requires_grad=True)
    with torch.no_grad():
        double = torch.rand(1, 2, 6, 6)
    average_maps([one, double], (3, 3)).sum().backward()
    torch.testing.assert_close(one.grad, torch.full_like(one, 0.5))


MAPS = torch.rand(2, 3, 4, 4)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda: self_supervised_loss(MAPS, MAPS[..., 1:], torch.ones(2, 3)),
            r"class maps \[2, 3, 4, 4\] and \[2, 3, 4, 3\] differ; resize them to one size",
        ),
        (lambda: self_supervised_loss(MAPS, MAPS, torch.ones(2, 4)), r"labels \[2, 4\] do not fit"),
        (lambda: average_maps([], (2, 2)), "no class maps given; give those of at least one scale"),
        (lambda: average_maps([MAPS, MAPS[:1]], (2, 2)), r"give \[N,C,h,w\], the same images and classes"),
        (lambda: average_maps([MAPS], (0, 2)), r"size=\(0, 2\); give \(height, width\) of 1 or more"),
    ],
)
def test_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
