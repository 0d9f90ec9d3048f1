"""Training crops of classifiers: they follow the seed, have the whole image's labels and never open masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from trainable import scenes

from camplug.errors import InputError
from camplug.wsss.classifier import ClassifierCrops
from camplug.wsss.train import ShuffledSampler


class Blind(type(scenes(1))):
    """Reading a mask ends the test."""

    def mask(self, i):
        raise AssertionError("a mask was read")


def data(count=6):
    return Blind(count, (40, 60), classes=3)


def test_crops_depend_on_seed_epoch_and_number_alone():
    one, other = (ClassifierCrops(data(), crop=48, sides=(40, 70), seed=5) for _ in range(2))
    _ = one[0, 1], one[3, 2]
    for which in ((0, 0), (1, 0), (1, 4)):
        assert torch.equal(one[which].pixels, other[which].pixels)
    assert not torch.equal(one[0, 0].pixels, one[1, 0].pixels)
    assert not torch.equal(one[0, 0].pixels, ClassifierCrops(data(), crop=48, sides=(40, 70), seed=6)[0, 0].pixels)
    assert not torch.equal(one.load_crop(0, 0).pixels, one.load_crop(0, 0, slot=1).pixels)


def test_labels_and_numbers():
    pictures = ClassifierCrops(data(), crop=32, sides=(32, 64), indices=[4, 1])
    for number, i in enumerate((4, 1)):
        item = pictures[0, number]
        assert torch.equal(item.present.nonzero().flatten(), torch.tensor(pictures.data.labels(i)))
        assert int(item.image) == i
        assert item.pixels.dtype == torch.uint8


def test_still_pictures_lie_in_the_middle():
    pictures = ClassifierCrops(data(), crop=30, sides=(1, 1), mean=(1.0, 0.0, 0.5), deterministic=True)
    pixels = pictures[0, 0].pixels
    assert torch.equal(pixels, pictures[7, 0].pixels)
    # 40x60 becomes 20x30: five rows of the mean colour above and below
    border = torch.cat([pixels[:, :5], pixels[:, 25:]], 1)
    assert border.flatten(1).unique(dim=1).tolist() == [[255], [0], [128]]
    wanted = np.asarray(data().photo(0).resize((30, 20), 3)).transpose(2, 0, 1)
    assert torch.equal(pixels[:, 5:25], torch.from_numpy(wanted.copy()))


def test_a_crop_is_a_part_of_the_resized_photograph():
    pictures = ClassifierCrops(data(), crop=24, sides=(60, 60), seed=2)
    whole = torch.from_numpy(np.array(data().photo(3))).permute(2, 0, 1)
    crop = pictures[0, 3].pixels
    places = [
        (y, x, flip)
        for flip in (False, True)
        for y in range(40 - 24 + 1)
        for x in range(60 - 24 + 1)
        if torch.equal((whole.flip(-1) if flip else whole)[:, y : y + 24, x : x + 24], crop)
    ]
    assert len(places) == 1


class Lacking(Blind):
    """Some photographs cannot be read; every image shows its own number of classes."""

    lacking = (1,)

    def photo(self, i):
        if i in self.lacking:
            raise InputError(f"photograph {i} is damaged.")
        return super().photo(i)

    def labels(self, i):
        return [(0,), (0, 1), (2,), (1,), (), (2,)][i]


def lacking(**options):
    return ClassifierCrops(Lacking(6, (40, 60), classes=3), crop=32, sides=(30, 50), seed=3, **options)


def test_another_image_takes_the_place_of_one_that_cannot_be_read():
    whole = ClassifierCrops(Lacking(6, (40, 60), classes=3), crop=32, sides=(30, 50), seed=3)
    with pytest.warns(UserWarning, match="scene0_000001: photograph 1 is damaged"):
        items = [whole[epoch, 1] for epoch in range(12)]
    taken = [int(item.image) for item in items]
    assert set(taken) == {0, 3}  # those that share a class with it
    for item, j in zip(items, taken, strict=True):
        assert item.present.nonzero().flatten().tolist() == list(whole.data.labels(j))
        assert item.pixels.float().std() > 10  # no square of one colour
    with pytest.warns(UserWarning, match="photograph 1"):
        again = [lacking()[epoch, 1] for epoch in range(12)]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(items, again, strict=True))
    assert whole.substitutes.list_broken() == [("scene0_000001", "photograph 1 is damaged.")]
    healthy = ClassifierCrops(data(), crop=32, sides=(30, 50), seed=3)
    assert torch.equal(whole[4, 2].pixels, healthy[4, 2].pixels)  # the others are as without it


def test_where_nothing_can_be_read_nothing_is_learned():
    pictures = lacking()
    pictures.data.lacking = range(6)
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(InputError, match="none of the 6 images can be read; the first one"),
    ):
        pictures[0, 1]


def test_validation_leaves_out_what_cannot_be_read():
    pictures = lacking(deterministic=True)
    with pytest.warns(UserWarning, match="photograph 1"):
        batch = ClassifierCrops.collate([pictures[0, i] for i in range(3)])
    assert batch.image.tolist() == [0, 2]
    assert batch.present.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert torch.equal(batch.pixels[1], pictures[0, 2].pixels)
    assert len(ClassifierCrops.collate([pictures[0, 1]]).image) == 0


def test_refusals():
    with pytest.raises(InputError, match="crop=0; give the side in pixels"):
        ClassifierCrops(data(), crop=0, sides=(1, 1))
    with pytest.raises(InputError, match=r"sides=\(4, 2\)"):
        ClassifierCrops(data(), crop=8, sides=(4, 2))
    with pytest.raises(InputError, match="no image to train on"):
        ClassifierCrops(data(), crop=8, sides=(4, 4), indices=[])


def test_processes_share_every_batch():
    whole = ShuffledSampler(11, seed=3, batch=4)
    assert len(whole) == 8
    shares = [ShuffledSampler(11, seed=3, batch=4, share=(r, 2)) for r in range(2)]
    for sampler in (whole, *shares):
        sampler.set_epoch(2)
    order = list(whole)
    assert order == list(ShuffledSampler(11, seed=3))[:0] + order
    assert len(order) == 8
    for t in range(2):
        together = [item for s in shares for item in list(s)[2 * t : 2 * t + 2]]
        assert sorted(together) == sorted(order[4 * t : 4 * t + 4])
    with pytest.raises(InputError, match="3 processes cannot share a batch of 4; give a multiple of 3"):
        ShuffledSampler(11, batch=4, share=(0, 3))
