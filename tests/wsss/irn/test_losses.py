"""The losses of affinity and displacement: golden numbers and slow loops over pairs."""

from __future__ import annotations

import math

import pytest
import torch

from camplug.errors import InputError
from camplug.wsss.affinity import affinity_loss, half_disc, pairs_of
from camplug.wsss.irn.losses import displacement_loss
from camplug.wsss.irn.paths import path_affinity

EPS = 1e-5


def listed_pairs(labels, radius):
    """Every pair with known ends: (image, offset number, source, destination, kind)."""
    n, h, w = labels.shape
    for i in range(n):
        for p, (dy, dx) in enumerate(half_disc(radius)):
            for y in range(h):
                for x in range(w):
                    if 0 <= y + dy < h and 0 <= x + dx < w:
                        one, other = int(labels[i, y, x]), int(labels[i, y + dy, x + dx])
                        if 255 not in (one, other):
                            kind = "different" if one != other else ("bg" if one == 0 else "fg")
                            yield i, p, (y, x), (y + dy, x + dx), kind


def labels_of(*size):
    return torch.tensor([0, 0, 3, 3, 7, 255])[torch.randint(0, 6, size)].repeat_interleave(2, 1)


def test_pairs_equal_a_loop():
    labels = labels_of(2, 4, 7)
    pairs = pairs_of(labels, 4)
    expected = {kind: torch.zeros_like(pairs.background) for kind in ("bg", "fg", "different")}
    for i, p, (y, x), _, kind in listed_pairs(labels, 4):
        expected[kind][i, p, y, x] = True
    assert torch.equal(pairs.background, expected["bg"])
    assert torch.equal(pairs.foreground, expected["fg"])
    assert torch.equal(pairs.different, expected["different"])


def test_affinity_loss_golden_number():
    """0 0 1 1 in a row, neighbours only: one background, one object pair, one of different classes."""
    labels = torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8)
    affinity = torch.zeros(1, 4, 1, 4)
    affinity[0, 0, 0, :3] = torch.tensor([0.5, 0.25, 0.8])
    expected = -math.log(0.5) / 4 - math.log(0.8) / 4 - math.log(0.75) / 2
    assert float(affinity_loss(affinity, pairs_of(labels, 2))) == pytest.approx(expected, abs=1e-4)


def test_affinity_loss_equals_a_loop():
    labels = labels_of(2, 3, 6)
    affinity = path_affinity(torch.rand(2, 6, 6, dtype=torch.float64), 4)
    sums, counts = dict.fromkeys(("bg", "fg", "different"), 0.0), dict.fromkeys(("bg", "fg", "different"), 0)
    for i, p, (y, x), _, kind in listed_pairs(labels, 4):
        a = float(affinity[i, p, y, x])
        sums[kind] -= math.log(1 + EPS - a) if kind == "different" else math.log(a + EPS)
        counts[kind] += 1
    mean = {kind: sums[kind] / (counts[kind] + EPS) for kind in sums}
    expected = (mean["bg"] / 2 + mean["fg"] / 2 + mean["different"]) / 2
    assert float(affinity_loss(affinity, pairs_of(labels, 4))) == pytest.approx(expected, rel=1e-9)


def test_parts_of_a_batch_with_mean_counts_average_to_the_whole():
    """As processes share a batch: their pairs differ in number, and the mean of their losses is that of the batch."""
    labels = labels_of(4, 4, 7)
    labels[0] = 255
    affinity = path_affinity(torch.rand(4, 8, 7, dtype=torch.float64), 4)
    displacement = torch.randn(4, 2, 8, 7, dtype=torch.float64)
    pairs = pairs_of(labels, 4)
    whole = [affinity_loss(affinity, pairs), *displacement_loss(displacement, pairs, 4)]
    parts, mean = [], pairs.counts() / 2
    for half in (slice(0, 2), slice(2, 4)):
        mine = pairs_of(labels[half], 4)
        assert mine.counts().tolist() != mean.tolist()
        parts.append([affinity_loss(affinity[half], mine, mean), *displacement_loss(displacement[half], mine, 4, mean)])
    averaged = [float(a + b) / 2 for a, b in zip(*parts, strict=True)]
    assert averaged == pytest.approx([float(value) for value in whole], rel=1e-6)


@pytest.mark.parametrize("value", [0, 5, 255])
def test_losses_of_one_kind_of_pixel_are_finite_and_learnable(value):
    labels = torch.full((1, 5, 5), value)
    boundary = torch.rand(1, 5, 5, requires_grad=True)
    displacement = torch.randn(1, 2, 5, 5, requires_grad=True)
    pairs = pairs_of(labels, 3)
    loss = affinity_loss(path_affinity(boundary, 3), pairs) + sum(displacement_loss(displacement, pairs, 3))
    loss.backward()
    assert loss.isfinite()
    assert boundary.grad.isfinite().all()
    assert displacement.grad.isfinite().all()
    assert (loss == 0) == (value == 255)


def test_displacements_to_one_centre_cost_nothing():
    labels = torch.ones(1, 6, 6, dtype=torch.uint8)
    grid = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij"))
    towards = torch.tensor([2.0, 3.0]).view(2, 1, 1) - grid
    foreground, background = displacement_loss(towards[None], pairs_of(labels, 4), 4)
    assert float(foreground) == 0
    assert float(background) == 0


def test_displacement_golden_number():
    """Two positions of one object, one step right: |D_i - D_j - (0, 1)| = |(1, 0) - (0, 1)| = 2, half of it is 1."""
    labels = torch.tensor([[[4, 4]]])
    displacement = torch.tensor([[[[3.0, 2.0]], [[1.0, 1.0]]]])
    foreground, _ = displacement_loss(displacement, pairs_of(labels, 2), 2)
    assert float(foreground) == pytest.approx(1, abs=1e-4)


def test_displacement_loss_equals_a_loop():
    labels = labels_of(2, 3, 7)
    displacement = torch.randn(2, 2, 6, 7, dtype=torch.float64)
    sums, counts = {"bg": 0.0, "fg": 0.0}, {"bg": 0, "fg": 0}
    for i, _, (y, x), (v, u), kind in listed_pairs(labels, 4):
        if kind == "different":
            continue
        delta = displacement[i, :, y, x] - displacement[i, :, v, u]
        wanted = torch.tensor([v - y, u - x]) if kind == "fg" else torch.zeros(2)
        sums[kind] += float((delta - wanted).abs().sum())
        counts[kind] += 1
    found = displacement_loss(displacement, pairs_of(labels, 4), 4)
    for value, kind in zip(found, ("fg", "bg"), strict=True):
        assert float(value) == pytest.approx(sums[kind] / (2 * (counts[kind] + EPS)), rel=1e-6)


@pytest.mark.parametrize("bad", [torch.zeros(3, 3, dtype=torch.int64), torch.zeros(1, 3, 3)])
def test_labels_refused(bad):
    with pytest.raises(InputError, match=r"whole numbers \[N,h,w\]; got"):
        pairs_of(bad, 3)
