"""The losses of affinity and displacement: golden numbers and slow loops over pairs."""

from __future__ import annotations

import math

import pytest
import torch
from moved import without_waits
from operations import Operations

from camplug.errors import InputError
from camplug.wsss.affinity import Pairs, affinity_loss, find_pairs, make_half_disc
from camplug.wsss.affinity.pairs import group_rows
from camplug.wsss.irn.losses import displacement_loss
from camplug.wsss.irn.paths import path_affinity

EPS = 1e-5


def listed_pairs(labels, radius):
    """Every pair with known ends: (image, offset number, source, destination, kind)."""
    n, h, w = labels.shape
    for i in range(n):
        for p, (dy, dx) in enumerate(make_half_disc(radius)):
            for y in range(h):
                for x in range(w):
                    if 0 <= y + dy < h and 0 <= x + dx < w:
                        one, other = int(labels[i, y, x]), int(labels[i, y + dy, x + dx])
                        if 255 not in (one, other):
                            kind = "different" if one != other else ("bg" if one == 0 else "fg")
                            yield i, p, (y, x), (y + dy, x + dx), kind


def labels_of(*size):
    return torch.tensor([0, 0, 3, 3, 7, 255])[torch.randint(0, 6, size)].repeat_interleave(2, 1)


@pytest.mark.parametrize("size", [(2, 4, 7), (1, 1, 9), (1, 8, 1), (1, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int8])
def test_pairs_equal_a_loop(size, dtype, device):
    labels = labels_of(*size)
    if dtype == torch.int8:
        labels[labels == 255] = 5  # there is no 255
    pairs = Pairs(*(kind.cpu() for kind in find_pairs(labels.to(device, dtype), 4)))
    expected = {kind: torch.zeros_like(pairs.background) for kind in ("bg", "fg", "different")}
    for i, p, (y, x), _, kind in listed_pairs(labels, 4):
        expected[kind][i, p, y, x] = True
    assert torch.equal(pairs.background, expected["bg"])
    assert torch.equal(pairs.foreground, expected["fg"])
    assert torch.equal(pairs.different, expected["different"])


def test_affinity_loss_golden_number(device):
    """0 0 1 1 in a row, neighbours only: one background, one object pair, one of different classes."""
    labels = torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8)
    affinity = torch.zeros(1, 4, 1, 4)
    affinity[0, 0, 0, :3] = torch.tensor([0.5, 0.25, 0.8])
    expected = -math.log(0.5) / 4 - math.log(0.8) / 4 - math.log(0.75) / 2
    loss = affinity_loss(affinity.to(device), find_pairs(labels.to(device), 2))
    assert loss.device.type == device.type
    assert float(loss) == pytest.approx(expected, abs=1e-4)


def test_affinity_loss_equals_a_loop(device):
    labels = labels_of(2, 3, 6)
    affinity = path_affinity(torch.rand(2, 6, 6, dtype=torch.float64), 4)
    sums, counts = dict.fromkeys(("bg", "fg", "different"), 0.0), dict.fromkeys(("bg", "fg", "different"), 0)
    for i, p, (y, x), _, kind in listed_pairs(labels, 4):
        a = float(affinity[i, p, y, x])
        sums[kind] -= math.log(1 + EPS - a) if kind == "different" else math.log(a + EPS)
        counts[kind] += 1
    mean = {kind: sums[kind] / (counts[kind] + EPS) for kind in sums}
    expected = (mean["bg"] / 2 + mean["fg"] / 2 + mean["different"]) / 2
    loss = affinity_loss(affinity.to(device), find_pairs(labels.to(device), 4))
    assert float(loss) == pytest.approx(expected, rel=1e-9)


def picked(affinity, pairs):
    """The loss by the pairs of each kind, picked out."""
    kinds = zip(pairs, (EPS, EPS, 1 + EPS), (1, 1, -1), (4, 4, 2), strict=True)
    return sum(
        -(start + sign * affinity[kind]).log().sum() / (int(kind.sum()) + EPS) / share
        for kind, start, sign, share in kinds
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_of_the_affinity_loss_are_those_of_its_pairs(dtype, device):
    """Also where affinities are 0 or 1, and nothing where a pair is of no kind."""
    pairs = find_pairs(labels_of(2, 3, 6), 4)
    affinity = torch.rand(pairs.background.shape, dtype=dtype)
    affinity[0, ::3], affinity[1, ::3] = 0, 1
    want = affinity.clone().requires_grad_()
    picked(want, pairs).backward()
    got = affinity.to(device).requires_grad_()
    loss = affinity_loss(got, Pairs(*(kind.to(device) for kind in pairs)))
    loss.backward()
    assert (loss.dtype, got.grad.dtype) == (dtype, dtype)
    torch.testing.assert_close(got.grad.cpu(), want.grad, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_are_computed_in_float32(dtype, device):
    """There 1 + epsilon - a would be 0 for a = 1, its logarithm infinite and its gradient nan."""
    pairs = find_pairs(labels_of(2, 4, 7).to(device), 4)
    affinity = torch.rand(pairs.background.shape).to(dtype)
    affinity[:, ::2] = 1
    displacement = (9 * torch.randn(2, 2, 8, 7)).to(dtype)
    results = []
    for there in (dtype, torch.float32):
        a, d = (x.detach().to(device, there).requires_grad_() for x in (affinity, displacement))
        losses = [affinity_loss(a, pairs), *displacement_loss(d, pairs, 4)]
        sum(losses).backward()
        assert all(loss.dtype == torch.float32 for loss in losses)
        results.append((torch.stack(losses), a.grad.float(), d.grad.float()))
    for half, single in zip(*results, strict=True):
        assert half.isfinite().all()
        torch.testing.assert_close(half, single, rtol=1e-2, atol=1e-4)


def test_parts_of_a_batch_with_mean_counts_average_to_the_whole(device):
    """As processes share a batch: their pairs differ in number, and the mean of their losses is that of the batch."""
    labels = labels_of(4, 4, 7)
    labels[0] = 255
    labels = labels.to(device)
    affinity = path_affinity(torch.rand(4, 8, 7, dtype=torch.float64).to(device), 4)
    displacement = torch.randn(4, 2, 8, 7, dtype=torch.float64).to(device)
    pairs = find_pairs(labels, 4)
    whole = [affinity_loss(affinity, pairs), *displacement_loss(displacement, pairs, 4)]
    parts, mean = [], pairs.count_pairs() / 2
    for half in (slice(0, 2), slice(2, 4)):
        mine = find_pairs(labels[half], 4)
        assert mine.count_pairs().tolist() != mean.tolist()
        parts.append([affinity_loss(affinity[half], mine, mean), *displacement_loss(displacement[half], mine, 4, mean)])
    averaged = [float(a + b) / 2 for a, b in zip(*parts, strict=True)]
    assert averaged == pytest.approx([float(value) for value in whole], rel=1e-6)


@pytest.mark.parametrize("value", [0, 5, 255])
def test_losses_of_one_kind_of_pixel_are_finite_and_learnable(value, device):
    labels = torch.full((1, 5, 5), value).to(device)
    boundary = torch.rand(1, 5, 5).to(device).requires_grad_()
    displacement = torch.randn(1, 2, 5, 5).to(device).requires_grad_()
    pairs = find_pairs(labels, 3)
    loss = affinity_loss(path_affinity(boundary, 3), pairs) + sum(displacement_loss(displacement, pairs, 3))
    loss.backward()
    assert loss.isfinite()
    assert boundary.grad.isfinite().all()
    assert displacement.grad.isfinite().all()
    assert (loss == 0) == (value == 255)


def test_displacements_to_one_centre_cost_nothing(device):
    labels = torch.ones(1, 6, 6, dtype=torch.uint8).to(device)
    grid = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij"))
    towards = torch.tensor([2.0, 3.0]).view(2, 1, 1) - grid
    foreground, background = displacement_loss(towards[None].to(device), find_pairs(labels, 4), 4)
    assert float(foreground) == 0
    assert float(background) == 0


def test_displacement_golden_number():
    """Two positions of one object, one step right: |D_i - D_j - (0, 1)| = |(1, 0) - (0, 1)| = 2, half of it is 1."""
    labels = torch.tensor([[[4, 4]]])
    displacement = torch.tensor([[[[3.0, 2.0]], [[1.0, 1.0]]]])
    foreground, _ = displacement_loss(displacement, find_pairs(labels, 2), 2)
    assert float(foreground) == pytest.approx(1, abs=1e-4)


def slow_displacement_loss(displacement, labels, radius):
    """L_fg and L_bg, pair by pair."""
    sums, counts = {"bg": 0.0, "fg": 0.0}, {"bg": 0, "fg": 0}
    for i, _, (y, x), (v, u), kind in listed_pairs(labels, radius):
        if kind == "different":
            continue
        delta = displacement[i, :, y, x] - displacement[i, :, v, u]
        wanted = torch.tensor([v - y, u - x]) if kind == "fg" else torch.zeros(2)
        sums[kind] += (delta - wanted).abs().sum()
        counts[kind] += 1
    return [torch.as_tensor(sums[kind] / (2 * (counts[kind] + EPS))) for kind in ("fg", "bg")]


@pytest.mark.parametrize("size", [(2, 3, 7), (1, 1, 9), (1, 4, 1)])
def test_displacement_losses_and_their_gradients_equal_a_loop(size, device):
    labels = labels_of(*size)
    displacement = torch.randn(labels.shape[0], 2, *labels.shape[1:], dtype=torch.float64)
    leaf, there = displacement.clone().requires_grad_(), displacement.to(device).requires_grad_()
    want = slow_displacement_loss(leaf, labels, 4)
    found = displacement_loss(there, find_pairs(labels.to(device), 4), 4)
    for value, expected in zip(found, want, strict=True):
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    (want[0] * 3 + want[1]).backward()
    (found[0] * 3 + found[1]).backward()
    torch.testing.assert_close(there.grad.cpu(), leaf.grad, rtol=1e-6, atol=1e-12)


def test_the_displacement_loss_keeps_nothing_as_large_as_all_pairs():
    kept, displacement = [], torch.randn(2, 2, 12, 12, requires_grad=True)
    pairs = find_pairs(torch.ones(2, 12, 12, dtype=torch.uint8), 5)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        sum(displacement_loss(displacement, pairs, 5))
    assert sum(kept) <= 2 * displacement.numel() + 4


def test_no_loss_waits_for_the_device(device):
    labels = labels_of(2, 6, 12).to(device)
    boundary = torch.rand(2, 12, 12).to(device).requires_grad_()
    displacement = torch.randn(2, 2, 12, 12).to(device).requires_grad_()
    path_affinity(boundary, 5)  # what is made once is made now
    with without_waits(device):
        pairs = find_pairs(labels, 5)
        losses = [affinity_loss(path_affinity(boundary, 5), pairs), *displacement_loss(displacement, pairs, 5)]
        sum(losses).backward()


def test_operations_are_made_for_rows_of_offsets_not_for_each(device):
    """152 offsets in 10 rows."""
    labels = labels_of(2, 8, 16).to(device)
    displacement = torch.randn(2, 2, 16, 16).to(device).requires_grad_()
    with Operations() as operations:
        pairs = find_pairs(labels, 10)
    assert operations.total <= 16 * len(group_rows(10))
    with Operations() as operations:
        affinity_loss(torch.rand(2, 152, 16, 16).to(device).requires_grad_(), pairs).backward()
    assert operations.total <= 50
    with Operations() as operations:
        sum(displacement_loss(displacement, pairs, 10)).backward()
    assert operations.total <= 30 * len(group_rows(10)) + 40


@pytest.mark.parametrize("bad", [torch.zeros(3, 3, dtype=torch.int64), torch.zeros(1, 3, 3)])
def test_labels_refused(bad):
    with pytest.raises(InputError, match=r"whole numbers \[N,h,w\]; got"):
        find_pairs(bad, 3)
