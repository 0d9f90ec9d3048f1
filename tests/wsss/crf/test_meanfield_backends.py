"""The dense CRF in torch against the one in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import simulated
from crf_scenes import blocks, scene
from operations import Operations
from scipy.ndimage import gaussian_filter

from camplug.errors import InputError
from camplug.wsss.crf import (
    PRESETS,
    DenseCRF,
    make_unary_from_labels,
    refine_photographs,
)

ALL = sorted(PRESETS)


def photograph(h=150, w=200, seed=0):
    """Objects with sharp edges before a ground, both with fine and coarse texture, and a camera's noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    picture = np.full((h, w, 3), 110.0) + 40 * gaussian_filter(rng.normal(size=(h, w, 1)), (20, 20, 0)) * 20
    for _ in range(6):
        cy, cx, ry, rx = rng.random(4) * (h, w, h / 3, w / 3) + (0, 0, 8, 8)
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        picture[inside] = rng.integers(20, 235, 3) + 12 * gaussian_filter(rng.normal(size=(h, w)), 2)[inside, None]
    return np.clip(picture + rng.normal(scale=3, size=(h, w, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("k", [2, 4, 7])
def test_torch_equals_numpy(preset, k, device):
    photo, unary = scene(30, 40), make_unary_from_labels(blocks(k, 30, 40), k)
    want = DenseCRF(photo, preset).refine(unary)
    q = DenseCRF(photo, preset, backend="torch", device=device).refine(unary)
    assert q.dtype == np.float32
    np.testing.assert_allclose(q, want, atol=2e-3)
    assert np.abs(q - want).mean() < 1e-5
    assert np.array_equal(q.argmax(0), want.argmax(0))


@pytest.mark.parametrize("k", [3, 21])
def test_labels_of_a_photograph_equal_those_of_numpy(k, device):
    """But for ties within float32."""
    photo = photograph()
    coarse = np.random.default_rng(k).normal(size=(k, *photo.shape[:2]))
    labels = gaussian_filter(coarse, (0, 9, 9)).argmax(0)
    unary = make_unary_from_labels(labels, k)
    want = DenseCRF(photo).refine(unary)
    q = DenseCRF(photo, backend="torch", device=device).refine(unary)
    assert len(np.unique(want.argmax(0))) == k
    assert 0.05 < (want.argmax(0) != labels).mean() < 0.9  # there was something to do
    differing = q.argmax(0) != want.argmax(0)
    assert differing.mean() < 0.001
    first, second = np.sort(want[:, differing], 0)[:-3:-1]
    assert (first - second < 1e-3).all()
    np.testing.assert_allclose(q, want, atol=5e-3)


@pytest.mark.parametrize("preset", ALL)
def test_photographs_together_equal_one_by_one(preset, device):
    """Photographs of several sizes and numbers of classes; alike ones do not meet either."""
    photos = [scene(30, 40), scene(21, 17, seed=1), scene(30, 40), np.full((1, 1, 3), 9, np.uint8)]
    unaries = [make_unary_from_labels(blocks(k, *p.shape[:2]), k) for k, p in zip((3, 5, 2, 1), photos, strict=True)]
    found = refine_photographs(photos, unaries, preset, device=device)
    for q, photo, unary in zip(found, photos, unaries, strict=True):
        assert q.dtype == np.float32
        np.testing.assert_allclose(q, DenseCRF(photo, preset).refine(unary), atol=2e-3)
    assert refine_photographs([], [], device=device) == []
    with pytest.raises(InputError, match="4 photographs have 1 unaries"):
        refine_photographs(photos, unaries[:1])


def test_a_photograph_crosses_over_once(device):
    """The unary goes to the device and the marginals come back; no iteration waits for it."""
    crf, unary = DenseCRF(scene(), backend="torch", device=device), make_unary_from_labels(blocks(3), 3)
    with simulated.count_waits() as waits:
        crf.refine(unary)
    assert waits.total() == (device.type == simulated.NAME)


def test_operations_of_an_iteration(device):
    """Two lattices with 3 and 6 directions, splat, slice and sum, and softmax; the others are views."""
    unary, counted = make_unary_from_labels(blocks(3), 3), []
    for iterations in (1, 2):
        crf = DenseCRF(scene(), replace(PRESETS["irn"], iterations=iterations), backend="torch", device=device)
        with Operations() as operations:
            crf.refine(unary)
        counted.append(operations.total)
    assert counted[1] - counted[0] <= 9 + 2 * 3 + 1 + 13
