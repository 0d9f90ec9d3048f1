"""What networks train on: where a crop lies, what surrounds it, and that it is the same one in every run."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from heads import photos
from numpy.testing import assert_array_equal
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import Scenes
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.train import LabelCrops, ShuffledSampler, read_labels
from camplug.wsss.train.crops import check_label_content
from camplug.wsss.train.folder import find_labelled

GRID = np.mgrid[0:256, 0:256].astype(np.uint8)


class Coordinates(SegmentationData):
    """Photographs whose red is the row and whose green is the column."""

    classes = ("a", "b")
    has_masks = False

    def __init__(self, *sizes):
        self.sizes, self.ids = sizes, tuple(f"{i}" for i in range(len(sizes)))

    def labels(self, i):
        return (0,)

    def photo(self, i):
        h, w = self.sizes[i]
        return Image.fromarray(np.stack([*GRID[:, :h, :w], np.full((h, w), 7, np.uint8)], -1))

    def mask(self, i):
        raise AssertionError


def plain(pixels):
    return pixels.float() + 1000  # so that what is filled up, 0, is told from every pixel


def crops_of(*sizes, labels=None, **options):
    data = Coordinates(*sizes)
    marks = labels or (lambda i: (GRID[0] % 3)[: data.sizes[i][0], : data.sizes[i][1]])
    return LabelCrops(data, marks, plain, **{"scales": (1, 1), "stride": 1, **options})


def test_a_crop_of_a_larger_photograph():
    crops = crops_of((40, 50), crop=16)
    seen = set()
    for epoch in range(40):
        image, labels = crops[epoch, 0]
        assert (image.shape, image.dtype, labels.shape, labels.dtype) == (
            (3, 16, 16), torch.float32, (16, 16), torch.uint8,
        )  # fmt: skip
        rows, columns = image[0] - 1000, image[1] - 1000
        top, left, step = int(rows[0, 0]), int(columns[0].min()), int(columns[0, 1] - columns[0, 0])
        assert step in (1, -1)  # mirrored or not
        assert_array_equal(rows, np.arange(top, top + 16)[:, None] * np.ones((1, 16)))
        expected = np.arange(left, left + 16)[::step]
        assert_array_equal(columns, expected[None] * np.ones((16, 1)))
        assert_array_equal(labels, np.arange(top, top + 16)[:, None] % 3 * np.ones((1, 16)))
        assert top + 16 <= 40
        assert left + 16 <= 50
        seen.add((top, left, step))
    assert len(seen) > 35
    assert {step for *_, step in seen} == {1, -1}


def test_every_place_is_as_likely():
    crops = crops_of((6, 7), crop=4)
    places = [crops[epoch, 0].image[0, 0, 0].item() for epoch in range(300)]
    counts = np.unique(places, return_counts=True)
    assert_array_equal(counts[0], [1000, 1001, 1002])
    assert counts[1].min() > 70


def test_a_smaller_photograph_lies_in_the_square_and_the_rest_is_ignored():
    crops = crops_of((6, 9), crop=12)
    tops = set()
    for epoch in range(40):
        image, labels = crops[epoch, 0]
        inside = image[2] != 0
        ys, xs = np.nonzero(inside.numpy())
        assert (ys.max() - ys.min() + 1, xs.max() - xs.min() + 1, inside.sum()) == (6, 9, 54)
        part = image[:, ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] - 1000
        assert_array_equal(part[0], GRID[0][:6, :9])
        assert sorted(part[1][0].tolist()) == list(range(9))
        assert_array_equal(labels == 255, ~inside)
        assert_array_equal(labels[inside].reshape(6, 9), (GRID[0] % 3)[:6, :9])
        assert image[:, ~inside].abs().sum() == 0
        tops.add((int(ys.min()), int(xs.min())))
    assert len(tops) > 15
    assert {t for t, _ in tops} == set(range(7))
    assert {left for _, left in tops} == set(range(4))


def test_wide_but_not_high():
    image, labels = crops_of((4, 30), crop=8)[0, 0]
    assert ((labels != 255).sum(0) == 4).all()  # all columns, four rows
    assert ((image[2] != 0).sum(0) == 4).all()


def test_scales_and_the_long_side():
    widths = {}
    for name, options in {
        "own": {"scales": (0.5, 1.5)},
        "long": {"scales": (0.5, 1.5), "long_side": 80},
        "fixed": {"scales": (2, 2)},
    }.items():
        crops = crops_of((20, 40), crop=128, **options)
        seen = [tuple((crops[epoch, 0].image[2] != 0).any(axis).sum().item() for axis in (1, 0)) for epoch in range(30)]
        assert all(abs(h - w / 2) <= 1 for h, w in seen)
        widths[name] = [w for _, w in seen]
    assert (min(widths["own"]) >= 20, max(widths["own"]) <= 60, len(set(widths["own"])) > 15) == (True,) * 3
    assert (min(widths["long"]) >= 40, max(widths["long"]) <= 120, max(widths["long"]) > 100) == (True,) * 3
    assert set(widths["fixed"]) == {80}


def test_labels_are_the_middle_pixels_of_cells():
    mark = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
    for stride in (4, 8):
        crops = crops_of((16, 16), crop=16, stride=stride, labels=lambda i: mark)
        items = {crops[epoch, 0].labels.numpy().tobytes() for epoch in range(8)}
        half = stride // 2
        expected = {m[half::stride, half::stride].tobytes() for m in (mark, mark[:, ::-1])}
        assert items == expected


def test_labels_are_resized_by_the_nearest_and_photographs_bicubically():
    data = Scenes(1, (40, 56))
    mark = np.random.default_rng(0).choice([0, 1, 2, 255], (40, 56)).astype(np.uint8)
    crops = LabelCrops(data, lambda i: mark, plain, crop=24, scales=(0.6, 0.6), stride=1)
    image, labels = crops[0, 0]
    small = np.asarray(data.photo(0).resize((34, 24), Image.Resampling.BICUBIC)).transpose(2, 0, 1).astype(int)
    marks = np.asarray(Image.fromarray(mark).resize((34, 24), Image.Resampling.NEAREST))
    candidates = [(small[..., x : x + 24], marks[:, x : x + 24]) for x in range(11)]
    mirrored = [
        (s[..., ::-1], m[:, ::-1]) for s, m in ((small[..., x : x + 24], marks[:, x : x + 24]) for x in range(11))
    ]
    found = [m for s, m in candidates + mirrored if np.array_equal(s + 1000, image)]
    assert len(found) == 1
    assert_array_equal(found[0], labels)


def test_an_item_depends_on_seed_epoch_and_image_alone():
    sizes = [(30, 40), (50, 20), (33, 33)]
    some = {"crop": 16, "scales": (0.5, 1.5)}
    one, other = crops_of(*sizes, **some), crops_of(*sizes, **some)
    wanted = [(epoch, number) for epoch in range(3) for number in range(3)]
    first = {which: one[which] for which in wanted}
    for which in reversed(wanted):  # in another order, from another object
        assert_array_equal(other[which].image, first[which].image)
        assert_array_equal(other[which].labels, first[which].labels)
    assert len({item.image.numpy().tobytes() for item in first.values()}) == 9
    seeded = crops_of(*sizes, **some, seed=1)
    assert not any(torch.equal(seeded[which].image, first[which].image) for which in wanted)
    picked = crops_of(*sizes, **some, indices=[2, 0])  # the image, not its place in the list
    assert len(picked) == 2
    assert_array_equal(picked[1, 0].image, first[1, 2].image)


def test_a_golden_crop():
    """The numbers of one item: another version must not change what a resumed training sees."""
    image, labels = crops_of((30, 40), crop=8, scales=(0.5, 1.5), stride=2)[4, 0]  # enlarged and mirrored
    assert (image - 1000)[0, :, 0].int().tolist() == [20, 20, 21, 22, 23, 23, 24, 25]
    assert (image - 1000)[1, 0].int().tolist() == [25, 25, 24, 23, 22, 22, 21, 20]
    assert labels.tolist() == [[2] * 4, [1] * 4, [2] * 4, [1] * 4]


def test_another_image_takes_the_place_of_one_that_cannot_be_read(tmp_path):
    data = photos(tmp_path / "mine", {f"{c}.png": ["cat"] for c in "abc"})
    (tmp_path / "mine" / "images" / "a.png").write_bytes(b"no")
    marks = [np.full((14, 20), i, np.uint8) for i in (9, 1, 2)]
    marks[2] = marks[2][1:]  # of another size than its photograph
    crops = LabelCrops(data, marks.__getitem__, plain, crop=8, scales=(1, 1))
    with pytest.warns(UserWarning, match="png|20x13") as told:
        items = [crops[epoch, number] for epoch in range(2) for number in (0, 1, 2)]
    assert all((labels == 1).all() and (image != 0).all() for image, labels in items)
    first, second = sorted({str(warning.message) for warning in told})
    assert first.startswith("a: ")
    assert first.endswith("is not an image that Pillow can read (JPEG, PNG, WebP, TIFF, ...).")
    assert second.startswith("c: the labels of 'c' are 20x13, its photograph is 20x14")
    assert [name for name, _ in crops.substitutes.list_broken()] == ["a", "c"]


def test_the_order_of_an_epoch():
    sampler = ShuffledSampler(50, seed=4)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        items = list(sampler)
        assert {e for e, _ in items} == {epoch}
        assert sorted(n for _, n in items) == list(range(50))
        orders.append([n for _, n in items])
    assert orders[0] == orders[2] != orders[1]
    assert list(ShuffledSampler(50, seed=5)) != list(ShuffledSampler(50, seed=4))
    assert len(sampler) == 50


def test_pictures_of_labels(tmp_path):
    data = photos(tmp_path / "mine", {"a.png": ["cat"], "b.png": ["dog"], "c.png": []})
    labels = tmp_path / "labels"
    labels.mkdir()
    assert [name for name, _ in find_labelled(LabelFolder(labels), data)[1]] == ["a", "b", "c"]
    mark = np.full((14, 20), 3, np.uint8)
    for name, value in (("a", mark), ("c", mark[:, :9])):
        Image.fromarray(value).save(labels / f"{name}.png")
    missing = f"there are no labels {str(labels / 'b.png')!r}."
    assert find_labelled(LabelFolder(labels), data) == ([0, 2], [("b", missing)])
    assert_array_equal(read_labels(labels, data, 0), mark)
    with pytest.raises(InputError, match="the labels of 'c' are 9x14, its photograph is 20x14"):
        read_labels(labels, data, 2)
    with pytest.raises(InputError, match="there is no mask"):
        read_labels(labels, data, 1)
    Image.fromarray(mark + 1).save(labels / "b.png")
    with pytest.raises(InputError, match="holds the value 4"):
        read_labels(labels, data, 1)


@pytest.mark.parametrize(
    "options,says",
    [
        ({"crop": 10, "stride": 4}, "crop=10; give a multiple of 4"),
        ({"crop": 0, "stride": 4}, "crop=0; give a multiple of 4"),
        ({"scales": (1.5, 0.5)}, "scales=(1.5, 0.5); give the smallest and the largest"),
        ({"scales": (0, 1)}, "scales=(0, 1); give"),
        ({"indices": []}, "there is no image to train on."),
    ],
)
def test_options_out_of_range(options, says):
    with pytest.raises(InputError) as error:
        crops_of((4, 4), **options)
    assert says in str(error.value)


def test_label_pictures_that_teach_nothing():
    pictures = [np.full((2, 2), 255), np.array([[0, 255]]), np.array([[0, 3]])]

    def labels(i):
        if i == 3:
            raise InputError("it is gone.")
        return pictures[i].astype(np.uint8)

    with pytest.raises(InputError, match=r"all pixels of all 2 label pictures are ignored \(255\); give others\."):
        check_label_content(labels, [0, 3], "give others")
    with pytest.warns(UserWarning, match="none of the 2 label pictures shows an object, background alone; give others"):
        check_label_content(labels, [0, 1], "give others")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_label_content(labels, [0, 3, 1, 2], "give others")
