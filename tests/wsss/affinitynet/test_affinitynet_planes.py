"""Planes that walk, and the labels after the walk."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from camplug.errors import InputError
from camplug.wsss.affinity import SparseAffinity
from camplug.wsss.affinitynet import add_background_scores, make_walk_planes
from camplug.wsss.pseudo import AffinityNetWalk, PseudoLabels


def row(*affinities):
    """Positions in a row, with the affinity of each and the next."""
    return SparseAffinity.from_pairs(np.array([[[*affinities, 0.0]]]), [(0, 1)])


def make_labels(maps, affinity):
    """Labels after the walk over an affinity."""
    network = SimpleNamespace(affinities=lambda photo: affinity)
    return PseudoLabels(AffinityNetWalk(network))(np.zeros((*maps.shape[1:], 3), np.uint8), maps)


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


def test_the_walk_brings_labels_to_where_maps_are_faint():
    """Cells 0 and 1 belong together, and so do 2 and 3: the first two end with (1 + 0.1) / 2 and 0.9^16 / 2."""
    maps = np.zeros((1, 8, 32), np.float32)
    maps[:, :, :8], maps[:, :, 8:16] = 1.0, 0.1
    labels = make_labels(maps, row(1.0, 0.05, 1.0))
    assert (labels[:, :14] == 1).all()  # where 0.55 (1 - t) = 0.093 + 0.907 t, t from the middle of cell 1 on
    assert (labels[:, 15:] == 0).all()


def test_bad_input():
    with pytest.raises(InputError, match="stride=0"):
        make_walk_planes(np.zeros((1, 8, 16), np.float32), stride=0)
    with pytest.raises(InputError, match="resize the maps"):
        make_labels(np.zeros((1, 8, 16), np.float32), row(0.5, 0.5))
