"""The merged maps: one small example by hand, and the paper's four cases taken pixel by pixel."""

from __future__ import annotations

import pytest
import torch
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.atm import assign_classes, merge_maps
from camplug.wsss.classifier.maps import normalize_maps

_on_the_device = everywhere("assign_classes", "merge_maps", "normalize_maps")

BOTH = torch.tensor([[1, 1]])


def class_of(maps, present, background):
    """Argmax over the background and the present classes of one pixel; None is the background."""
    best, label = background, None
    for c, value in enumerate(maps):
        if present[c] and value > best:
            best, label = value, c
    return label


def four_cases(enhanced, decreased, present, background=0.3, sure=0.5):
    """Section III-B, case by case."""
    n, c, h, w = enhanced.shape
    merged = torch.zeros_like(enhanced)
    for i in range(n):
        for y in range(h):
            for x in range(w):
                pe, pd = enhanced[i, :, y, x].tolist(), decreased[i, :, y, x].tolist()
                label_e, label_d = (class_of(p, present[i].tolist(), background) for p in (pe, pd))
                for k in range(c):
                    if label_e == k and label_d == k:  # case 1
                        merged[i, k, y, x] = max(pe[k], pd[k])
                    elif label_e == k or label_d == k:
                        if max(pe[k], pd[k]) > sure:  # case 2
                            merged[i, k, y, x] = max(pe[k], pd[k])
                        else:  # case 3
                            merged[i, k, y, x] = 0
                    else:  # case 4
                        merged[i, k, y, x] = 0
    return merged


def test_merged_golden_numbers():
    """Two classes on 2 x 3 positions, background 0.3.

    ========  ============  ============  ==================================================================
    position  enhanced      decreased     merged
    ========  ============  ============  ==================================================================
    0, 0      0.9  0.1      0.4  0.2      both say class 0, case 1: 0.9; class 1, case 4: 0
    0, 1      0.4  0.1      0.35 0.1      both say class 0 below 0.5, case 1: 0.4
    0, 2      0.6  0.1      0.2  0.1      only one says class 0, above 0.5, case 2: 0.6
    1, 0      0.45 0.1      0.2  0.1      only one says class 0, below 0.5, case 3: 0
    1, 1      0.2  0.3      0.1  0.3      background (0.3 ties with it), case 4: 0
    1, 2      0.7  0.6      0.5  0.55     class 0 and class 1, each case 2: 0.7 and 0.6
    ========  ============  ============  ==================================================================
    """
    enhanced = torch.tensor([[[[0.9, 0.4, 0.6], [0.45, 0.2, 0.7]], [[0.1, 0.1, 0.1], [0.1, 0.3, 0.6]]]])
    decreased = torch.tensor([[[[0.4, 0.35, 0.2], [0.2, 0.1, 0.5]], [[0.2, 0.1, 0.1], [0.1, 0.3, 0.55]]]])
    expected = torch.tensor([[[[0.9, 0.4, 0.6], [0, 0, 0.7]], [[0, 0, 0], [0, 0, 0.6]]]])
    assert torch.equal(merge_maps(enhanced, decreased, BOTH), expected)


def test_exactly_half_is_not_sure():
    half, low = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, 1, 1, 1)
    assert float(merge_maps(half, low, torch.ones(1, 1))) == 0
    assert float(merge_maps(half, low, torch.ones(1, 1), sure=0.49)) == 0.5
    assert float(merge_maps(half, half, torch.ones(1, 1))) == 0.5


@pytest.mark.parametrize("background, sure", [(0.3, 0.5), (0.25, 0.4), (0.0, 0.9), (0.6, 0.5)])
def test_merged_maps_equal_the_four_cases(background, sure):
    torch.manual_seed(0)
    enhanced, decreased = torch.rand(2, 3, 4, 5, 6, dtype=torch.float64)
    present = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    merged = merge_maps(enhanced, decreased, present, background=background, sure=sure)
    assert torch.equal(merged, four_cases(enhanced, decreased, present, background, sure))
    assert merged[1].count_nonzero() == 0
    assert merged[0, 2].count_nonzero() == 0
    assert 0 < int(merged.count_nonzero()) < merged.numel()


def test_belonging_equals_the_argmax():
    torch.manual_seed(1)
    maps, present = torch.rand(3, 4, 5, 6), torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    found = assign_classes(maps, present, 0.4)
    assert found.dtype == torch.bool
    for i in range(3):
        for y in range(5):
            for x in range(6):
                label = class_of(maps[i, :, y, x].tolist(), present[i].tolist(), 0.4)
                assert found[i, :, y, x].nonzero().flatten().tolist() == ([] if label is None else [label])


def test_ties_go_to_the_background_then_to_the_first_class():
    maps = torch.tensor([[[[0.25, 0.75]], [[0.25, 0.75]]]])
    assert assign_classes(maps, BOTH, 0.25)[0, :, 0].tolist() == [[False, True], [False, False]]


def test_a_background_of_one_minus_the_maximum_is_a_constant_half():
    maps, present = torch.rand(2, 3, 8, 8), torch.ones(2, 3)
    planes = torch.cat([1 - maps.amax(1, keepdim=True), maps], 1)
    labels = torch.nn.functional.one_hot(planes.argmax(1), 4).movedim(3, 1)[:, 1:].bool()
    assert torch.equal(assign_classes(maps, present, 0.5), labels)


def test_merged_maps_have_no_gradient():
    raw = torch.randn(2, 2, 3, 4, 4, requires_grad=True)
    present = torch.ones(2, 3, dtype=torch.bool)
    merged = merge_maps(normalize_maps(raw[0]), normalize_maps(raw[1]), present)
    assert not merged.requires_grad
    assert merged.count_nonzero() > 0


def test_maps_of_zeros_and_of_one_position():
    zeros = torch.zeros(1, 2, 1, 1)
    assert merge_maps(zeros, zeros, BOTH).count_nonzero() == 0
    assert not assign_classes(zeros, BOTH, 0).any()
    assert merge_maps(zeros + 0.8, zeros, torch.tensor([[0.0, 1.0]])).flatten().tolist() == pytest.approx([0, 0.8])


def test_refused():
    maps = torch.rand(1, 2, 3, 3)
    with pytest.raises(InputError, match=r"\[1, 2, 3, 3\] and labels \[1, 3\] do not fit"):
        assign_classes(maps, torch.ones(1, 3))
    with pytest.raises(InputError, match=r"background=30; give a value from 0 to 1"):
        merge_maps(maps, maps, BOTH, background=30)
    with pytest.raises(InputError, match=r"sure=-1; give a value from 0 to 1"):
        merge_maps(maps, maps, BOTH, sure=-1)
    with pytest.raises(InputError, match=r"different shapes \[1, 2, 3, 3\], \[1, 2, 3, 2\]"):
        merge_maps(maps, maps[..., :2], BOTH)
