"""What walks and what comes out: pooled planes, enlarged labels, and the walk between them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from camplug.errors import InputError
from camplug.wsss.affinity import SparseAffinity, propagate
from camplug.wsss.affinitynet import add_background_scores, label_planes, make_walk_planes, walk_to_labels


def row(*affinities):
    """Positions in a row, with the affinity of each and the next."""
    return SparseAffinity.from_pairs(np.array([[[*affinities, 0.0]]]), [(0, 1)])


def test_planes_by_hand():
    maps = np.zeros((1, 8, 20))
    maps[:, :, :4], maps[:, :, 16:] = 1.0, 0.5
    planes = make_walk_planes(maps, alpha=2)
    np.testing.assert_allclose(planes, [[[0.5, 1.0, 0.25]], [[0.5, 0.0, 0.5]]])


@pytest.mark.parametrize("size", [(16, 24), (13, 9), (1, 17), (1, 1), (47, 31)])
@pytest.mark.parametrize("stride", [8, 3])
def test_planes_are_means_of_what_is_there(size, stride):
    maps = np.random.default_rng(0).random((2, *size))
    scores = torch.from_numpy(add_background_scores(maps, 16))[None]
    wanted = F.avg_pool2d(scores, stride, ceil_mode=True)[0].numpy()
    np.testing.assert_allclose(make_walk_planes(maps, 16, stride), wanted, atol=1e-12)


def test_planes_keep_float32():
    assert make_walk_planes(np.ones((1, 9, 9), np.float32)).dtype == np.float32


def test_planes_without_classes():
    np.testing.assert_array_equal(make_walk_planes(np.zeros((0, 9, 17))), np.ones((1, 2, 3)))


@pytest.mark.parametrize("size", [(16, 24), (13, 9), (1, 17), (1, 1)])
def test_labels_are_the_strongest_of_enlarged_planes(size):
    h, w = -(-size[0] // 8), -(-size[1] // 8)
    planes = np.random.default_rng(0).random((4, h, w)).astype(np.float32)
    full = F.interpolate(torch.from_numpy(planes)[None], (8 * h, 8 * w), mode="bilinear", align_corners=False)[0]
    labels = label_planes(planes, size)
    np.testing.assert_array_equal(labels, full.argmax(0)[: size[0], : size[1]])
    assert labels.dtype == np.uint8


def test_the_walk_brings_labels_to_where_maps_are_faint():
    """Cells 0 and 1 belong together, and so do 2 and 3: the first two end with (1 + 0.1) / 2 and 0.9^16 / 2."""
    maps = np.zeros((1, 8, 32), np.float32)
    maps[:, :, :8], maps[:, :, 8:16] = 1.0, 0.1
    assert (label_planes(make_walk_planes(maps), (8, 32))[:, 12:] == 0).all()
    labels = walk_to_labels(maps, row(1.0, 0.05, 1.0))
    assert (labels[:, :14] == 1).all()  # where 0.55 (1 - t) = 0.093 + 0.907 t, t from the middle of cell 1 on
    assert (labels[:, 15:] == 0).all()


def test_refined_labels_are_the_three_steps():
    rng = np.random.default_rng(1)
    maps = rng.random((3, 10, 30)).astype(np.float32)
    affinity = SparseAffinity.from_pairs(rng.random((2, 2, 4)), [(0, 1), (1, 0)])
    walked = propagate(make_walk_planes(maps, 6), affinity, 64, 8)
    labels = walk_to_labels(maps, affinity, alpha=6, steps=64, tolerance=None)
    np.testing.assert_array_equal(labels, label_planes(walked, (10, 30)))


def test_no_classes_no_labels():
    assert not walk_to_labels(np.zeros((0, 8, 16), np.float32), row(0.5)).any()


def test_bad_input():
    maps = np.zeros((1, 8, 16), np.float32)
    with pytest.raises(InputError, match="stride=0"):
        make_walk_planes(maps, stride=0)
    with pytest.raises(InputError, match=r"give \[K\+1,1,3\]"):
        label_planes(np.zeros((2, 1, 2)), (8, 17))
    with pytest.raises(InputError):
        walk_to_labels(maps, row(0.5, 0.5))
