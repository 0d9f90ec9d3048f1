"""Groups: whose crops an item holds, in every run of a seed the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from trainable import scenes

from camplug.wsss.classifier import ClassifierCrops
from camplug.wsss.rpnet import Groups


def groups(group=2, count=16, seed=0, each_first=False, **options):
    crops = ClassifierCrops(scenes(count), crop=32, sides=(32, 64), seed=seed, **options)
    return Groups(crops, group, each_first=each_first)


def test_groups_of_one_are_the_pictures():
    one = groups(1)
    assert len(one) == 16
    for number in range(16):
        for mine, theirs in zip(one[3, number], one.crops[3, number], strict=True):
            assert torch.equal(mine, theirs[None])


@pytest.mark.parametrize("group", [2, 3, 4])
def test_a_group_shares_a_class_and_each_has_its_crop(group):
    items = groups(group)
    assert len(items) == 16 // group
    for number in range(len(items)):
        found = items[1, number]
        assert found.pixels.shape == (group, 3, 32, 32)
        assert found.pixels.dtype == torch.uint8
        assert found.image.shape == (group,)
        assert len(set(found.image.tolist())) == group
        assert found.present.prod(0).sum() >= 0
        first = found.present[0].bool()
        for slot in range(group):
            assert (found.present[slot].bool() & first).any()  # of the one that they were drawn for
            alone = items.crops.load_crop(1, int(found.image[slot]), slot)
            assert torch.equal(found.pixels[slot], alone.pixels)
            assert torch.equal(found.present[slot], alone.present)


def test_all_images_come_first_alike():
    """80 epochs of 8 groups have 640 first images: each of 16 images about 40 times, 5 sigma of a fair draw."""
    items = groups()
    first = Counter(items.list_members(epoch, number)[0] for epoch in range(80) for number in range(8))
    assert sorted(first) == list(range(16))
    assert all(abs(count - 40) < 5 * np.sqrt(80 * 0.25) for count in first.values())
    for epoch in range(3):
        order = [items.list_members(epoch, number)[0] for number in range(8)]
        assert len(set(order)) == 8


def test_each_image_is_first_once_an_epoch():
    items = groups(each_first=True)
    assert len(items) == 16
    members = [items.list_members(2, number) for number in range(16)]
    assert sorted(first for first, _ in members) == list(range(16))
    assert members[:8] == [groups().list_members(2, number) for number in range(8)]
    assert len(groups(3, each_first=True)) == 16


def test_the_same_in_every_run_of_a_seed():
    one, other = groups(), groups()
    there = [(e, n) for e in range(2) for n in range(8)]
    found = {which: one[which] for which in there}
    for which in reversed(there):  # whatever the order
        assert all(torch.equal(a, b) for a, b in zip(found[which], other[which], strict=True))
    assert any(not torch.equal(groups(seed=1)[which].image, found[which].image) for which in there)
    assert any(not torch.equal(found[0, n].image, found[1, n].image) for n in range(8))


def test_some_images_only():
    chosen = [2, 3, 5, 7, 11, 13]
    items = groups(indices=chosen)
    assert len(items) == 3
    assert {int(i) for epoch in range(9) for n in range(3) for i in items[epoch, n].image} == set(chosen)


@pytest.mark.filterwarnings("ignore:.*share no class")
def test_its_own_partner_has_another_crop():
    found = groups(count=1)[0, 0] if len(groups(count=1)) else groups(count=2, indices=[0, 0])[0, 0]
    assert found.image.tolist() == [0, 0]
    assert not torch.equal(found.pixels[0], found.pixels[1])
