"""One pass: what is kept, whatever the order and the shares, and how much memory it takes."""

from __future__ import annotations

import io
import random

import pytest
import torch
from moved import moved, without_waits

from camplug.errors import InputError
from camplug.wsss.fpr import Collector, compute_centroids, get_group_numbers, make_class_masks

C, D = 4, 6


@pytest.fixture(autouse=True)
def _on_the_device(monkeypatch, device):
    add = Collector.add

    def there(self, features, maps, present, images):
        add(self, *moved((features, maps), device), present, images)

    monkeypatch.setattr(Collector, "add", there)


def data(n=60, size=(3, 5)):
    """Features, class maps of which some light nothing, labels of which some are empty."""
    maps = torch.randn(n, C, *size)
    maps[torch.rand(n, C) < 0.2] = -1
    return torch.randn(n, D, *size), maps, (torch.rand(n, C) < 0.4).long()


def collected(parts, images, batch=7, **options):
    whole = Collector(C, **options)
    for i in range(0, len(images), batch):
        chosen = images[i : i + batch]
        whole.add(*(x[chosen] for x in parts), chosen)
    return whole


def same(one, other):
    return all(
        torch.equal(x, y)
        for part in ("positive", "negative", "usable")
        for x, y in zip(getattr(one, part), getattr(other, part), strict=True)
    )


def test_golden_numbers():
    """Two images of 2x2, two features, two classes; image 7 shows class 0, image 3 shows none."""
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [8.0, 8.0]]]]).repeat(2, 1, 1, 1)
    features[1] *= 2
    first = torch.tensor([[[5.0, 0.0], [5.0, -9.0]], [[0.0, 1.0], [0.0, 0.0]]])  # (1+3)/2, (0+8)/2; 2, 0
    second = torch.tensor([[[0.0, 0.0], [0.0, 6.0]], [[4.0, 4.0], [0.0, 0.0]]])  # 8, 16; (2+4)/2, 0
    pool = Collector(2)
    pool.add(features, torch.stack([first, second]), torch.tensor([[1, 0], [0, 0]]), [7, 3])
    found = pool.prototypes()
    assert [x.tolist() for x in found.positive] == [[[2.0, 4.0]], []]
    assert found.positive[1].shape == (0, 2)
    assert [x.tolist() for x in found.negative] == [[[8.0, 16.0]], [[3.0, 0.0], [2.0, 0.0]]]
    state = pool.state()
    assert state["negative_score"].tolist() == [1.5, 2.0, 0.25]
    assert state["negative_place"].tolist() == [[0, 3], [1, 3], [1, 7]]
    assert state["negative_present"].tolist() == [[False, False], [False, False], [True, False]]


def test_pass_equals_a_loop():
    features, maps, present = parts = data()
    found = collected(parts, list(range(60)), clusters=3, negatives=4).prototypes([0, 0, 1, 1])
    masks = make_class_masks(maps)
    for c in range(C):
        own, strange = [], []
        for n in range(60):
            inside = [features[n, :, y, x] for y in range(3) for x in range(5) if masks[n, c, y, x]]
            if inside and present[n, c]:
                own.append(sum(inside) / len(inside))
            elif inside:
                strange.append((float(maps[n, c].sum() / 15), sum(inside) / len(inside), n))
        strange.sort(key=lambda entry: -entry[0])
        assert torch.allclose(found.positive[c], compute_centroids(torch.stack(own), 3), atol=1e-5)
        assert torch.allclose(found.negative[c], torch.stack([f for _, f, _ in strange[:4]]), atol=1e-6)
        other = c ^ 1  # the class beside it in its group
        assert found.usable[c].tolist() == [not present[n, other] for _, _, n in strange[:4]]


def test_order_and_shares_change_no_bit():
    parts, images = data(), list(range(60))
    one = collected(parts, images).prototypes([0, 0, 1, 1])
    random.Random(0).shuffle(images)
    assert same(one, collected(parts, images, batch=11).prototypes([0, 0, 1, 1]))
    states = [collected(parts, images[i::3], batch=i + 1).state() for i in range(3)]
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    merged = Collector.merge(states)
    assert same(one, merged.prototypes([0, 0, 1, 1]))
    assert same(one, Collector.merge([states[2], states[0], states[1]]).prototypes([0, 0, 1, 1]))
    assert merged.bytes == collected(parts, images).bytes


def test_equal_scores_are_told_apart_by_image_number():
    parts = data(30)
    parts[1][:] = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])
    parts[2][:] = 0
    for images in (list(range(30)), list(reversed(range(30)))):
        place = collected(parts, images, negatives=3).state()["negative_place"]
        assert place[:, 1].tolist() == [0, 1, 2] * C


def test_an_image_given_twice_counts_once():
    """As samplers do that fill up the last share; in one process and over several."""
    parts, images = data(20), list(range(20))
    one = collected(parts, images).prototypes()
    assert same(one, collected(parts, [*images, 0, 3]).prototypes())
    assert same(
        one, Collector.merge([collected(parts, images).state(), collected(parts, images[:5]).state()]).prototypes()
    )


def test_nothing_seen_and_nothing_lit():
    empty = Collector(C)
    assert [len(x) for x in empty.prototypes().positive] == [0] * C
    assert empty.bytes == 0
    dark = Collector(C)
    dark.add(torch.randn(2, D, 3, 3), torch.zeros(2, C, 3, 3), torch.ones(2, C), [0, 1])
    assert [tuple(x.shape) for x in dark.prototypes().negative] == [(0, D)] * C
    whole = Collector.merge([empty.state(), collected(data(), [1, 2]).state(), dark.state()])
    assert whole.bytes > 0


def test_a_device_is_waited_for_once_for_many_images(device):
    features, maps, present = data(32)
    parts, pool = (*moved((features, maps), device), present), Collector(C)
    for start in (0, 16):
        with without_waits(device):
            for i in range(start, start + 15):
                pool.add(*(x[i : i + 1] for x in parts), [i])
        pool.add(*(x[start + 15 : start + 16] for x in parts), [start + 15])
    assert same(pool.prototypes(), collected(parts, list(range(32))).prototypes())


def test_no_negatives_wanted():
    assert [len(x) for x in collected(data(), [0, 1, 2], negatives=0).prototypes().negative] == [0] * C


def test_graphs_are_not_kept():
    features, maps, present = data(2)
    pool = Collector(C)
    pool.add(features.requires_grad_(), maps.requires_grad_(), present, [0, 1])
    assert not any(x.requires_grad for x in pool.prototypes().positive)


def test_person_has_no_usable_negatives():
    parts = data()
    found = collected(parts, list(range(60))).prototypes(get_group_numbers(["person", "cat", "dog", "cow"], "voc"))
    assert len(found.usable[0]) == 10
    assert not found.usable[0].any()


def test_memory_of_ten_thousand_images():
    """D=1280, C=20, one to two labels an image, every map lit: what the docstring says."""
    channels, classes, images = 1280, 20, 10_000
    pool = Collector(classes)
    features, maps = torch.randn(50, channels, 2, 2), torch.randn(50, classes, 2, 2)
    maps[..., 0, 0] = 1
    labels = 0
    for start in range(0, images, 50):
        present = torch.nn.functional.one_hot(torch.randint(0, classes, (50, 2)), classes).amax(1)
        present[::2] = torch.nn.functional.one_hot(torch.randint(0, classes, (25,)), classes)
        labels += int(present.sum())
        pool.add(features, maps, present, range(start, start + 50))
    assert pool.bytes == 4 * channels * labels + (4 * channels + classes) * 10 * classes
    assert pool.bytes / images < 7700 + 110


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"classes": 0}, "classes=0; give at least 1"),
        ({"classes": 2, "clusters": 0}, "clusters=0; give at least 1"),
        ({"classes": 2, "negatives": -1}, "negatives=-1; give at least 0"),
        ({"classes": 2, "theta": 2}, r"theta=2; the threshold"),
    ],
)
def test_options_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Collector(**options)


def test_batches_refused():
    features, maps, present = data(2)
    pool = Collector(C)
    with pytest.raises(InputError, match=r"of 1 images do not fit; give \[N,D,h,w\], \[N,4,h,w\] and \[N,4\]"):
        pool.add(features, maps, present, [0])
    with pytest.raises(InputError, match=r"the features or class maps of image 1 are not finite"):
        collected((features, maps / 0, present), [1, 0]).state()  # of a GPU they are looked at only here
    pool.add(features, maps, present, [0, 1])
    with pytest.raises(InputError, match="features with 3 channels after 6; take them from one layer"):
        pool.add(features[:, :3], maps, present, [0, 1])


def test_merges_and_groups_refused():
    with pytest.raises(InputError, match="no state to merge"):
        Collector.merge([])
    with pytest.raises(InputError, match=r"different settings.*; use the same"):
        Collector.merge([Collector(2).state(), Collector(3).state()])
    with pytest.raises(InputError, match="1 groups for 2 classes"):
        Collector(2).prototypes([0])
