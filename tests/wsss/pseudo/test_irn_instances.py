"""Objects of one class told apart: boundaries, displacements, walk and instances together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camplug.errors import InputError
from camplug.wsss.pseudo import IRNWalk


class Two:
    """Two objects side by side, 8 grid positions wide each: a boundary between them, each half to its own centre."""

    def __init__(self, displacements=True, device="cpu"):
        self.boundary = torch.zeros(8, 16)
        self.boundary[:, 7:9] = 0.9
        self.displacement = None
        if displacements:
            columns = torch.arange(16.0)
            self.displacement = torch.zeros(2, 8, 16)
            self.displacement[1] = torch.where(columns < 8, 3, 12) - columns
            self.displacement = self.displacement.to(device)
        self.boundary = self.boundary.to(device)

    def boundaries(self, photo):
        return self.boundary

    def displacements(self, photo):
        return self.displacement


PHOTO = np.zeros((32, 64, 3), np.uint8)
MAPS = np.full((1, 32, 64), 0.8, np.float32)


def test_two_objects_of_one_class(device):
    found = IRNWalk(Two(device=device), threshold=0.2, clear=0.0).find_instances(PHOTO, MAPS)
    assert [one.class_index for one in found] == [0, 0]
    left, right = sorted((one.mask for one in found), key=lambda mask: mask.nonzero()[1].mean())
    assert left[:, :28].all()
    assert right[:, 36:].all()
    assert not (left & right).any()
    assert all(0.2 < one.score <= 1 for one in found)


def test_the_walk_of_each_object_is_that_of_maps(device):
    """A photograph with one object: its instance is where the walked map is above the threshold."""
    one = Two(device=device)
    towards = torch.meshgrid(4 - torch.arange(8.0), 8 - torch.arange(16.0), indexing="ij")
    one.displacement = torch.stack(towards).to(device)
    maps = MAPS.copy()
    maps[0, :, 40:] = 0.1
    walk = IRNWalk(one, threshold=0.5, power=2.0, clear=0.5, steps=40)
    (found,) = walk.find_instances(PHOTO, maps)
    assert np.array_equal(found.mask, walk.maps(PHOTO, maps)[0] > 0.5)


def test_without_classes_there_is_nothing(device):
    assert IRNWalk(Two(device=device)).find_instances(PHOTO, MAPS[:0]) == []


def test_without_displacements_refused():
    with pytest.raises(InputError, match="no displacements"):
        IRNWalk(Two(displacements=False)).find_instances(PHOTO, MAPS)
