"""Thresholds that seeds give themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from camplug.errors import InputError
from camplug.wsss.seeds import Seed, SeedFolder, compute_otsu_thresholds, count_strongest_values


def variance_between(counts, cuts):
    """Written out: the weighted squares of the classes' means about the whole mean."""
    values, whole = np.arange(256), counts.sum()
    mean = (counts * values).sum() / whole
    parts = [(values > low) & (values <= high) for low, high in itertools.pairwise((-1, *cuts, 255))]
    weights = [counts[part].sum() for part in parts]
    means = [(counts[p] * values[p]).sum() / w if w else mean for p, w in zip(parts, weights, strict=True)]
    return sum(w / whole * (m - mean) ** 2 for w, m in zip(weights, means, strict=True))


def test_by_hand():
    """0, 1 | 4: means 1/2 and 4 about 5/3, 2/3 (7/6)^2 + 1/3 (7/3)^2 = 2.722; 0 | 1, 4: means 0 and 5/2,
    1/3 (5/3)^2 + 2/3 (5/6)^2 = 1.389."""
    counts = np.zeros(256, int)
    counts[[0, 1, 4]] = 1
    assert variance_between(counts, [1]) == pytest.approx(2.7222, abs=1e-4)
    assert variance_between(counts, [0]) == pytest.approx(1.3889, abs=1e-4)
    assert compute_otsu_thresholds(counts) == (1 / 255,)


@pytest.mark.parametrize("seed", range(3))
def test_against_all_pairs(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(m, s, n) for m, s, n in ((20, 15, 900), (90, 25, 400), (200, 30, 300))])
    counts = np.bincount(np.clip(values, 0, 255).astype(int) // 4 * 4, minlength=256)
    used = np.flatnonzero(counts)
    best = max(itertools.combinations(used[:-1], 2), key=lambda cuts: variance_between(counts, cuts))
    assert compute_otsu_thresholds(counts, 3) == tuple(cut / 255 for cut in best)
    best = max(used[:-1], key=lambda cut: variance_between(counts, [cut]))
    assert compute_otsu_thresholds(counts) == (best / 255,)


def test_too_few_values():
    counts = np.zeros(256, int)
    counts[[0, 255]] = 9
    assert compute_otsu_thresholds(counts) == (0.0,)
    with pytest.raises(InputError, match="hold 2 different values, and Otsu's method needs 3; give the thresholds"):
        compute_otsu_thresholds(counts, 3)


def test_values_of_a_folder(tmp_path):
    """The strongest map of each pixel; float maps in steps of 1/255; no value of images without a class or a seed."""
    folder, none = SeedFolder(tmp_path), np.zeros(0, np.float32)
    folder.prepare({})
    two = np.array([[[0, 7]], [[9, 3]]], np.uint8)
    folder.save("two", Seed(two, (0, 4), (1, 2), none))
    folder.save("half", Seed(np.array([[[0.5], [1.0]]], np.float16), (1,), (2, 1), none))
    folder.save("empty", Seed(np.zeros((0, 1, 2), np.uint8), (), (1, 2), none))
    told = []
    counts = count_strongest_values(folder, ["two", "half", "empty", "missing"], lambda: told.append(1))
    assert {int(v): int(counts[v]) for v in np.flatnonzero(counts)} == {7: 1, 9: 1, 128: 1, 255: 1}
    assert (len(told), counts.shape) == (4, (256,))
