"""Metrics that are one formula: numbers worked by hand, and slow references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from camplug import InputError
from camplug.trust import (
    bootstrap_mean,
    compare_maps,
    complexity,
    confidence_drop,
    confidence_gain,
    confidence_increase,
    cosine_similarity,
    energy_pointing_game,
    fill_boxes,
    mask_images,
    move_maps,
    pointing_game,
    rank_correlation,
    share_as_good,
    sparseness,
    structural_similarity,
)
from camplug.trust.similarity import is_constant


def t(*rows):
    return torch.tensor([rows], dtype=torch.float64)


def test_confidence_by_hand():
    before, after = torch.tensor([0.8, 0.5, 0.0, 1.0]), torch.tensor([0.2, 0.6, 0.3, 1.0])
    assert confidence_drop(before, after).tolist() == pytest.approx([0.75, 0, 0, 0])
    assert confidence_increase(before, after).tolist() == [0, 1, 1, 0]
    assert confidence_gain(before, after).tolist() == pytest.approx([0, 0.2, 0.3, 0])


def test_masked_images_by_hand(device):
    x = torch.tensor([[[[2.0, 4.0]], [[6.0, 8.0]]]]).to(device)
    masked = mask_images(x, torch.tensor([[[2.0, -1.0]]]).to(device) / 4)  # the map is [1, 0] after scaling
    assert masked.tolist() == [[[[2, 0]], [[6, 0]]]]
    masked = mask_images(x, torch.tensor([[[2.0, 1.0]]]).to(device), "mean")
    assert masked.tolist() == [[[[2, 3.5]], [[6, 7.5]]]]


def test_pointing_games_by_hand(device):
    heat = torch.zeros(4, 3, 5)
    heat[0, 1, 1], heat[0, 0, 0] = 3.0, 1.0
    heat[1, 0, 4], heat[1, 1, 1] = 1.0, 0.5
    heat[2] = 1.0  # constant
    heat[3, 1, 1], heat[3, 2, 4] = 2.0, -5.0
    masks = fill_boxes([[(1, 1, 3, 2)]] * 4, (3, 5))
    assert masks[0].nonzero().tolist() == [[1, 1], [1, 2]]
    heat, masks = heat.to(device), masks.to(device)
    assert pointing_game(heat, masks).tolist() == [1, 0, 0, 1]
    assert pointing_game(heat, masks, tolerance=2).tolist() == [1, 1, 0, 1]
    assert energy_pointing_game(heat, masks).tolist() == pytest.approx([0.75, 1 / 3, 2 / 15, 1])
    assert energy_pointing_game(torch.zeros(1, 3, 5), masks[:1]).tolist() == [0]
    with pytest.raises(InputError, match="one mask"):
        pointing_game(heat, masks[:1])
    with pytest.raises(InputError, match="tolerance"):
        pointing_game(heat, masks, tolerance=-1)


def test_sparseness_is_half_the_mean_difference_of_all_pairs(device):
    maps = torch.randn(2, 4, 5, dtype=torch.float64)
    values = maps.flatten(1).abs().numpy()
    slow = [sum(abs(a - b) for a in v for b in v) / (2 * len(v) ** 2 * v.mean()) for v in values]
    assert sparseness(maps.to(device)).tolist() == pytest.approx(slow)
    assert sparseness(torch.zeros(1, 2, 2)).tolist() == [0]


def test_complexity_by_hand(device):
    maps = torch.tensor([[[1.0, 1.0], [2.0, 0.0]], [[3.0, 3.0], [3.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]]).to(device)
    expected = [0.5 * math.log(4) + 0.5 * math.log(2), math.log(4), math.log(4)]
    assert complexity(maps).tolist() == pytest.approx(expected)


def test_rank_correlation_equals_scipy(device):
    a = torch.randint(0, 5, (3, 4, 6)).double()  # with ties
    b = torch.randn(3, 4, 6).double()
    slow = [spearmanr(u.flatten(), v.flatten()).statistic for u, v in zip(a.numpy(), b.numpy(), strict=True)]
    assert rank_correlation(a.to(device), b.to(device)).tolist() == pytest.approx(slow)
    assert rank_correlation(torch.ones(1, 2, 2), torch.rand(1, 2, 2)).isnan().all()


def test_cosine_by_hand():
    assert cosine_similarity(t([3, 4]), t([4, 3])).tolist() == pytest.approx([0.96])
    assert cosine_similarity(t([0, 0]), t([4, 3])).tolist() == [0]


def test_structural_similarity_equals_scikit_image(device):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image comes with the extra demo")
    a, b = torch.rand(2, 20, 26, dtype=torch.float64), torch.rand(2, 20, 26, dtype=torch.float64)
    b = 0.5 * (a + b)
    found = structural_similarity(a.to(device), b.to(device))
    slow = [
        metrics.structural_similarity(
            (u / u.max()).numpy(),
            (v / v.max()).numpy(),
            data_range=1,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        for u, v in zip(a, b, strict=True)
    ]
    assert found.tolist() == pytest.approx(slow, abs=1e-9)
    assert structural_similarity(a, 7 * a).tolist() == pytest.approx([1, 1])
    with pytest.raises(InputError, match="11x11"):
        structural_similarity(a[:, :5], b[:, :5])


def test_similarities_by_name():
    a, b = torch.rand(1, 12, 12), torch.rand(1, 12, 12)
    assert torch.equal(compare_maps(a, b, "cosine"), cosine_similarity(a, b))
    with pytest.raises(InputError, match="allowed are 'rank'"):
        compare_maps(a, b, "ranks")
    with pytest.raises(InputError, match="one shape"):
        compare_maps(a, b[:, :3])


def test_constant_maps_are_known():
    maps = torch.ones(3, 4, 4)
    maps[1, 0, 0] = 1 + 1e-6
    maps[2, 0, 0] = 1.01
    assert is_constant(maps).tolist() == [True, True, False]


def test_bootstrap_covers_the_mean_of_a_known_distribution():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = bootstrap_mean(values)
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20  # what theory gives
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert found == bootstrap_mean(values)
    assert found != bootstrap_mean(values, seed=1)
    wide = bootstrap_mean(values, confidence=0.99)
    assert wide.low < found.low < found.high < wide.high


def test_bootstrap_leaves_nan_out_and_counts():
    found = bootstrap_mean([1.0, float("nan"), 3.0])
    assert (found.mean, found.count) == (2, 2)
    assert bootstrap_mean([]).count == 0
    assert math.isnan(bootstrap_mean([float("nan")]).mean)
    with pytest.raises(InputError, match="confidence="):
        bootstrap_mean([1.0], confidence=1)


def test_share_as_good_by_hand():
    assert share_as_good(1.0, [0.0] * 19) == 1 / 20
    assert share_as_good(0.5, [0.5, 0.4, 0.6]) == 3 / 4


def test_moved_maps_hold_the_same_values():
    heat = torch.rand(2, 5, 7)
    moved = move_maps(heat, 6, seed=1)
    assert moved.shape == (2, 6, 5, 7)
    assert torch.equal(moved.flatten(2).sort(2).values, heat.flatten(1).sort(1).values[:, None].expand(2, 6, 35))
    assert len({tuple(m.flatten().tolist()) for m in moved[0]}) > 1
