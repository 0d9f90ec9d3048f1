"""The similarity losses of attention transfer: golden numbers, slow loops, gradients, edges."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.atm import background_similarity_loss, make_background_planes, merge_maps, similarity_loss
from camplug.wsss.classifier.maps import normalize_maps

_on_the_device = everywhere(
    "make_background_planes", "background_similarity_loss", "merge_maps", "normalize_maps", "similarity_loss"
)

PRESENT = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])


def maps_of(count, size=(3, 4, 2, 3), seed=0):
    torch.manual_seed(seed)
    return [torch.rand(size, dtype=torch.float64, requires_grad=True) for _ in range(count)]


def each(maps, present):
    """Every (image, class, y, x) of a present class."""
    n, c, h, w = maps.shape
    return [(i, k, y, x) for i in range(n) for k in range(c) if present[i, k] for y in range(h) for x in range(w)]


def mean_difference(one, other, present, average="all"):
    """Absent classes differ by 0, and count where all classes are averaged over."""
    entries = each(one, present)
    return sum(abs(one[e] - other[e]) for e in entries) / (one.numel() if average == "all" else len(entries))


def planes_by_loop(maps, present):
    n, c, h, w = maps.shape
    rows = []
    for i in range(n):
        for y in range(h):
            for x in range(w):
                shown = [maps[i, k, y, x] if present[i, k] else maps.new_zeros(()) for k in range(c)]
                best = max(range(c), key=lambda k: float(shown[k].detach()))
                pixel = [1 - shown[best]] + [shown[k] if k == best else maps.new_zeros(()) for k in range(c)]
                rows.append(torch.stack(pixel))
    return torch.stack(rows).view(n, h, w, c + 1).movedim(3, 1)


def assert_same(found, expected, variables):
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    gradients = zip(torch.autograd.grad(found, variables), torch.autograd.grad(expected, variables), strict=True)
    for one, other in gradients:
        torch.testing.assert_close(one, other)
        assert one.abs().sum() > 0


def test_similarity_golden_number():
    """One of two classes is present: |o - d| = .2 and .4, |o - e| = .1 and 0, and 0 for the absent class."""
    original = torch.tensor([[[[0.5, 1.0]], [[9.0, 9.0]]]])
    enhanced = torch.tensor([[[[0.6, 1.0]], [[0.0, 0.0]]]])
    decreased = torch.tensor([[[[0.3, 0.6]], [[0.0, 0.0]]]])
    present = torch.tensor([[1, 0]])
    assert float(similarity_loss(original, enhanced, decreased, present)) == pytest.approx((0.6 + 0.1) / 4 / 2)
    assert float(similarity_loss(original, enhanced, None, present)) == pytest.approx(0.025)
    assert float(similarity_loss(original, None, decreased, present)) == pytest.approx(0.15)
    assert float(similarity_loss(original, enhanced, decreased, present, average="present")) == pytest.approx(0.175)


@pytest.mark.parametrize("average", ["all", "present"])
def test_similarity_equals_a_loop(average):
    original, enhanced, decreased = maps_of(3)
    bars = [mean_difference(original, view, PRESENT, average) for view in (decreased, enhanced)]
    found = similarity_loss(original, enhanced, decreased, PRESENT, average=average)
    assert_same(found, sum(bars) / 2, [original, enhanced, decreased])


@pytest.mark.parametrize("enhanced", [True, False])
def test_similarity_of_one_view_equals_a_loop(enhanced):
    original, view = maps_of(2)
    found = similarity_loss(original, view if enhanced else None, None if enhanced else view, PRESENT)
    assert_same(found, mean_difference(original, view, PRESENT), [original, view])


def test_planes_golden_numbers():
    maps = torch.tensor([[[[0.8, 0.1, 0.0]], [[0.6, 0.4, 0.0]], [[1.0, 1.0, 1.0]]]])
    planes = make_background_planes(maps, torch.tensor([[1, 1, 0]]))
    expected = torch.tensor([[[[0.2, 0.6, 1.0]], [[0.8, 0, 0]], [[0, 0.4, 0]], [[0, 0, 0]]]])
    torch.testing.assert_close(planes, expected)
    assert torch.equal(make_background_planes(maps, torch.tensor([[1, 1, 0]]), foreground=False), planes[:, :1])


def test_equally_strong_classes_stay():
    planes = make_background_planes(torch.full((1, 2, 1, 1), 0.7), torch.ones(1, 2))
    torch.testing.assert_close(planes.flatten(), torch.tensor([0.3, 0.7, 0.7]))


def test_planes_equal_a_loop():
    (maps,) = maps_of(1)
    torch.testing.assert_close(make_background_planes(maps, PRESENT), planes_by_loop(maps, PRESENT))
    weights = torch.rand(3, 5, 2, 3, dtype=torch.float64)
    found, expected = ((planes(maps, PRESENT) * weights).sum() for planes in (make_background_planes, planes_by_loop))
    assert_same(found, expected, [maps])


def test_background_similarity_golden_number():
    """Planes .5 .1 and .5 .9 in place of .2 .1 and .8 .9: differences .3 0 and .3 0; 0 0 for the absent class."""
    original = torch.tensor([[[[0.5, 0.9]], [[0.3, 0.3]]]])
    merged = torch.tensor([[[[0.8, 0.9]], [[0.0, 0.9]]]])
    present = torch.tensor([[1, 0]])
    loss = partial(background_similarity_loss, original, merged, present)
    assert float(loss()) == pytest.approx(0.6 / 6)
    assert float(loss(average="present")) == pytest.approx(0.6 / 4)
    assert float(loss(foreground=False)) == float(loss(foreground=False, average="present")) == pytest.approx(0.15)
    both = torch.tensor([[1, 1]])  # and the second class: 0 0 in place of 0 .9
    for average in ("all", "present"):
        assert float(background_similarity_loss(original, merged, both, average=average)) == pytest.approx(1.5 / 6)


@pytest.mark.parametrize("average", ["all", "present"])
@pytest.mark.parametrize("foreground", [True, False])
def test_background_similarity_equals_a_loop(foreground, average):
    original, enhanced, decreased = maps_of(3)
    merged = merge_maps(enhanced, decreased, PRESENT)
    planes = [planes_by_loop(maps, PRESENT)[:, : None if foreground else 1] for maps in (original, merged)]
    shown = torch.cat([torch.ones(3, 1), PRESENT], 1)[:, : planes[0].shape[1]]
    found = background_similarity_loss(original, merged, PRESENT, foreground=foreground, average=average)
    assert_same(found, mean_difference(*planes, shown, average), [original])


def test_merged_maps_are_detached():
    original, merged = maps_of(2)
    background_similarity_loss(original, merged, PRESENT).backward()
    assert merged.grad is None
    assert original.grad.abs().sum() > 0


def test_without_a_present_class_the_losses_are_0_with_a_graph():
    original, enhanced, decreased = maps_of(3)
    none = torch.zeros(3, 4)
    merged = merge_maps(enhanced, decreased, none)
    similarity = similarity_loss(original, enhanced, decreased, none)
    background = background_similarity_loss(original, merged, none)
    (similarity + background).backward()
    assert similarity.item() == background.item() == 0
    assert original.grad.count_nonzero() == enhanced.grad.count_nonzero() == 0


@pytest.mark.parametrize("size", [(2, 3, 4, 4), (1, 1, 1, 1)])
def test_maps_of_zeros_give_finite_gradients(size):
    raw = [torch.zeros(size, requires_grad=True) for _ in range(3)]
    present = torch.ones(size[:2])
    original, enhanced, decreased = (normalize_maps(r, present) for r in raw)
    loss = similarity_loss(original, enhanced, decreased, present)
    loss = loss + background_similarity_loss(original, merge_maps(enhanced, decreased, present), present)
    loss.backward()
    assert loss.item() == 0
    assert all(r.grad.isfinite().all() for r in raw)


def test_absent_classes_may_hold_anything():
    original, view = (torch.rand(1, 2, 2, 2) for _ in range(2))
    present = torch.tensor([[True, False]])
    plain = similarity_loss(original, view, None, present), background_similarity_loss(original, view, present)
    original[:, 1] = float("nan")
    view[:, 1] = float("inf")
    assert plain == (
        similarity_loss(original, view, None, present),
        background_similarity_loss(original, view, present),
    )


def test_half_precision_does_not_overflow():
    original, view = torch.ones(2, 4, 200, 200).half(), torch.zeros(2, 4, 200, 200).half()
    assert float(similarity_loss(original, view, None, torch.ones(2, 4))) == 1
    assert float(background_similarity_loss(original, view, torch.ones(2, 4))) == 1


def test_refused():
    maps = torch.rand(1, 2, 3, 3)
    present = torch.ones(1, 2)
    with pytest.raises(InputError, match="there is no adjusted view; give the maps of the enhanced or the decreased"):
        similarity_loss(maps, None, None, present)
    with pytest.raises(InputError, match=r"different shapes \[1, 2, 3, 3\], \[1, 2, 2, 3\]"):
        similarity_loss(maps, maps[:, :, :2], None, present)
    with pytest.raises(InputError, match=r"labels \[1, 3\] do not fit"):
        make_background_planes(maps, torch.ones(1, 3))
    with pytest.raises(InputError, match=r"different shapes \[1, 2, 3, 3\], \[1, 1, 3, 3\]"):
        background_similarity_loss(maps, maps[:, :1], present)
