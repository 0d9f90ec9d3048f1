"""Confident regions, their dropping and their prototypes: golden numbers and slow loops."""

from __future__ import annotations

import pytest
import torch
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.rpnet import compute_prototypes, drop_positions, find_confident_regions

_on_the_device = everywhere("find_confident_regions", "drop_positions", "compute_prototypes")


def slow_regions(features, threshold):
    n, d, h, w = features.shape
    mask = torch.zeros(n, h, w, dtype=torch.bool)
    for i in range(n):
        for c in range(d):
            values = [[max(0.0, float(features[i, c, y, x])) for x in range(w)] for y in range(h)]
            peak = max(max(row) for row in values)
            for y in range(h):
                for x in range(w):
                    if values[y][x] / (peak + 1e-5) >= threshold:
                        mask[i, y, x] = True
    return mask


def test_regions_golden():
    """Shares of the peaks: 0.25 0.31 0.99 in one channel, 0.29 0.99 0 in the other; at 0.3 the first is out."""
    features = torch.tensor([[[[2.5, 3.1, 10.0]], [[0.29, 1.0, -5.0]]]])
    assert find_confident_regions(features).tolist() == [[[False, True, True]]]
    assert find_confident_regions(features, 0.28).tolist() == [[[True, True, True]]]
    assert find_confident_regions(features[:, :1], 0.5).tolist() == [[[False, False, True]]]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.8])
def test_regions_equal_a_loop(threshold):
    features = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    assert torch.equal(find_confident_regions(features, threshold), slow_regions(features, threshold))


def test_negative_features_are_cut_before_the_maximum():
    """Without the cut -1 / (-1 + eps) is 1: every channel of negative features would be confident somewhere."""
    features = -torch.rand(1, 4, 3, 3) - 0.5
    assert not find_confident_regions(features).any()
    features[0, 2, 1, 1] = 1.0
    assert find_confident_regions(features).nonzero().tolist() == [[0, 1, 1]]


def test_regions_of_half_precision_and_with_a_gradient():
    features = (torch.rand(2, 3, 4, 4) * 6e4).half().requires_grad_()
    mask = find_confident_regions(features)
    assert torch.equal(mask, slow_regions(features.detach(), 0.3))
    assert not mask.requires_grad


def test_dropped_follows_the_generator():
    mask = torch.rand(3, 5, 5) > 0.3
    draw = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(7))
    found = drop_positions(mask, 0.4, torch.Generator().manual_seed(7))
    assert torch.equal(found, mask & (draw < 0.4))


def test_dropped_keeps_the_given_share():
    mask = torch.ones(4, 100, 100, dtype=torch.bool)
    mask[:, :50] = False
    kept = drop_positions(mask, 0.3, torch.Generator().manual_seed(0))
    assert not kept[:, :50].any()
    assert float(kept[:, 50:].double().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(drop_positions(mask, 1.0), mask)


def test_a_mask_is_never_dropped_entirely_and_each_position_may_survive():
    mask = torch.zeros(600, 2, 3, dtype=torch.bool)
    mask[:, 0, 1] = mask[:, 1, 0] = mask[:, 1, 2] = True
    kept = drop_positions(mask, 1e-6, torch.Generator().manual_seed(1))
    assert (kept.sum((1, 2)) == 1).all()
    counts = kept.sum(0)
    assert counts[~mask[0]].sum() == 0
    assert counts[mask[0]].min() > 150  # of 200 expected, standard deviation 11.5


def test_an_empty_mask_stays_empty():
    assert not drop_positions(torch.zeros(2, 3, 3, dtype=torch.bool)).any()


def test_prototypes_golden():
    """(1 + 3) / (2 + 0.0005) and (10 + 20) / 2.0005; an empty region gives 0."""
    features = torch.tensor([[[[1.0, 3.0, 9.0]], [[10.0, 20.0, 0.0]]]], dtype=torch.float64)
    mask = torch.tensor([[[True, True, False]]])
    assert compute_prototypes(features, mask)[0].tolist() == pytest.approx([4 / 2.0005, 30 / 2.0005], rel=1e-12)
    assert compute_prototypes(features, torch.zeros_like(mask)).tolist() == [[0, 0]]


def test_prototypes_equal_a_loop_in_value_and_gradient():
    features = torch.randn(3, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(3, 3, 2) > 0.5
    rows = []
    for i in range(3):
        total, area = torch.zeros(4, dtype=torch.float64), 5e-4
        for y in range(3):
            for x in range(2):
                if mask[i, y, x]:
                    total, area = total + features[i, :, y, x], area + 1
        rows.append(total / area)
    slow, fast = torch.stack(rows), compute_prototypes(features, mask)
    torch.testing.assert_close(fast, slow)
    weights = torch.randn_like(slow)
    found, expected = (torch.autograd.grad((p * weights).sum(), features)[0] for p in (fast, slow))
    torch.testing.assert_close(found, expected)


def test_prototypes_do_not_overflow_half_precision(device):
    features = torch.full((1, 2, 16, 16), 6e4).half()
    mean = 6e4 * 256 / 256.0005
    with torch.autocast(device.type, torch.bfloat16):
        found = compute_prototypes(features, torch.ones(1, 16, 16, dtype=torch.bool))
    assert found.dtype == torch.float32
    assert found[0].tolist() == pytest.approx([mean, mean], rel=1e-6)


def test_a_generator_of_a_gpu_is_refused(device):
    if device.type != "cuda":
        pytest.skip("needs a generator of a GPU")
    with pytest.raises(InputError, match=r"the generator is on cuda(:\d)?; give one of the CPU"):
        drop_positions(torch.ones(3, 5, 5, dtype=torch.bool), 0.4, torch.Generator("cuda"))


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda: find_confident_regions(torch.rand(1, 2, 3, 3), 1.0),
            r"threshold=1\.0; give a number above 0 and below 1",
        ),
        (
            lambda: find_confident_regions(torch.rand(2, 3, 3)),
            r"features are torch.float32 \[2, 3, 3\]; give floating-point",
        ),
        (lambda: find_confident_regions(torch.ones(1, 2, 3, 3, dtype=torch.int64)), r"features are torch.int64"),
        (lambda: find_confident_regions(torch.rand(1, 2, 0, 3)), r"none of it 0"),
        (lambda: drop_positions(torch.rand(1, 3, 3)), r"mask is torch.float32 \[1, 3, 3\]; give bool \[N,h,w\]"),
        (lambda: drop_positions(torch.ones(1, 3, 3).bool(), 0), r"keep=0; give a probability above 0 and at most 1"),
        (
            lambda: compute_prototypes(torch.rand(1, 2, 3, 3), torch.ones(1, 3, 2).bool()),
            r"features \[1, 2, 3, 3\] and mask \[1, 3, 2\] do not fit",
        ),
    ],
)
def test_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
