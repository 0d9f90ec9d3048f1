"""The instance step: fields drawn by hand, a loop over positions, pieces, scores, order, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from camplug.errors import InputError
from camplug.wsss.irn.instances import cluster_positions, cut_instance_maps, find_centroids, find_instances

RNG = np.random.default_rng(0)


def pointing(owner, centres):
    """[2,h,w]: each position points to the centre that `owner` [h,w] numbers."""
    return (np.array(centres)[owner].transpose(2, 0, 1) - np.indices(owner.shape)).astype(float)


def halves(h=12, w=24):
    """Two boxes side by side, and a field that points to their centres."""
    owner = np.repeat([[0, 1]], w // 2, axis=1).repeat(h, 0)
    return owner, pointing(owner, [(h // 2, w // 4), (h // 2, 3 * w // 4)])


def same(maps):
    return maps


def slow_centroids(field, steps):
    """One position at a time: four corners, their weights, a move, the border."""
    h, w = field.shape[1:]
    out = np.zeros((2, h, w), int)
    for start in np.ndindex(h, w):
        y, x = map(float, start)
        for _ in range(steps):
            top, left = math.floor(y), math.floor(x)
            move = np.zeros(2)
            for a, wy in ((top, 1 - (y - top)), (top + 1, y - top)):
                for b, wx in ((left, 1 - (x - left)), (left + 1, x - left)):
                    if wy * wx > 0:
                        move += wy * wx * field[:, a, b]
            y, x = min(max(y + move[0], 0), h - 1), min(max(x + move[1], 0), w - 1)
        out[(slice(None), *start)] = round(y), round(x)
    return out


def slow_parts(mask):
    """4-connected parts by flooding, numbered in reading order."""
    parts, count = np.zeros(mask.shape, int), 0
    for start in np.ndindex(mask.shape):
        if not mask[start] or parts[start]:
            continue
        count += 1
        todo = [start]
        while todo:
            y, x = todo.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not parts[y, x]:
                parts[y, x] = count
                todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return parts, count


@pytest.mark.parametrize("steps", [0, 1, 2, 9])
@pytest.mark.parametrize("size", [(6, 7), (1, 5), (5, 1), (1, 1)])
def test_centroids_equal_the_loop(size, steps):
    field = RNG.normal(0, 0.8, (2, *size))
    ends = find_centroids(field, steps)
    assert ends.dtype == np.int64
    np.testing.assert_array_equal(ends, slow_centroids(field, steps))


def test_centroids_of_long_walks_equal_the_loop(device):
    field = halves(6, 8)[1]
    field = 0.01 * field + RNG.normal(0, 0.002, field.shape)
    np.testing.assert_array_equal(find_centroids(field), slow_centroids(field, 300))
    there, ends = torch.from_numpy(field).float().to(device).requires_grad_(), find_centroids(field)
    np.testing.assert_array_equal(find_centroids(there), ends)
    labels, count = cluster_positions(there, torch.from_numpy(ends).to(device), 0.02)
    assert count == cluster_positions(field, ends, 0.02)[1]
    np.testing.assert_array_equal(labels, cluster_positions(field, ends, 0.02)[0])


def test_a_field_by_hand():
    """Arrows to the middle of 5x5, then a quarter as long."""
    rows = [[2, 2, 2, 2, 2], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [-1, -1, -1, -1, -1], [-2, -2, -2, -2, -2]]
    field = np.array([rows, np.transpose(rows)], float)
    np.testing.assert_array_equal(find_centroids(field), np.full((2, 5, 5), 2))
    np.testing.assert_array_equal(cluster_positions(field, find_centroids(field), 1.5)[0], np.ones((5, 5)))
    np.testing.assert_array_equal(find_centroids(field / 4, steps=1)[0][:, 0], [0, 1, 2, 3, 4])  # 0.5 and 3.5 to even
    # once more: from 3.5 by -1.5 / 4, the mean of rows 3 and 4, to 3.125
    np.testing.assert_array_equal(find_centroids(field / 4, steps=2)[0][:, 0], [1, 1, 2, 3, 3])


def test_clusters_of_5x5_by_hand():
    columns = [0.4, 0, 9, 0, -0.4]
    field = np.array([np.zeros((5, 5)), np.tile(columns, (5, 1))])
    ends = np.indices((5, 5))
    ends[1] = [1, 1, 2, 3, 3]
    labels, count = cluster_positions(field, ends)
    assert count == 2
    np.testing.assert_array_equal(labels, np.tile([1, 1, 0, 2, 2], (5, 1)))
    # corners do not connect
    steps = np.full((2, 5, 5), 9.0)
    steps[:, [0, 1], [0, 1]] = 0
    assert cluster_positions(steps, np.indices((5, 5)))[1] == 2
    # shorter than the threshold, not as short
    bound = np.zeros((2, 1, 2))
    bound[:, 0, 1] = 1.5, 2.0
    assert cluster_positions(bound, np.indices((1, 2)))[0].tolist() == [[1, 0]]
    assert cluster_positions(bound, np.indices((1, 2)), 2.51)[0].tolist() == [[1, 1]]


def test_clusters_equal_a_flood():
    for _ in range(5):
        field = RNG.normal(0, 2, (2, 12, 13))
        ends = find_centroids(field, 20)
        parts, count = slow_parts(np.sqrt(field[0] ** 2 + field[1] ** 2) < 2.5)
        labels, found = cluster_positions(field, ends)
        assert found == count
        np.testing.assert_array_equal(labels, parts[ends[0], ends[1]])


def test_two_centres_are_two_clusters():
    owner, field = halves()
    labels, count = cluster_positions(field, find_centroids(field))
    assert count == 2
    np.testing.assert_array_equal(labels, owner + 1)


def test_no_displacement_is_one_cluster():
    labels, count = cluster_positions(np.zeros((2, 4, 6)), find_centroids(np.zeros((2, 4, 6))))
    assert count == 1
    assert (labels == 1).all()


def test_what_runs_into_the_border_is_a_cluster_too():
    """An object cut by the border points out of the photograph and reaches no centre."""
    field = np.zeros((2, 4, 12))
    field[1, :, 6:] = 20 - np.arange(6, 12)
    labels, count = cluster_positions(field, find_centroids(field))
    assert count == 1
    np.testing.assert_array_equal(labels, np.tile([1] * 6 + [0] * 6, (4, 1)))
    found = find_instances(np.ones((1, 4, 12)), field, same, (16, 48))
    assert len(found) == 2


def test_instance_maps():
    maps = RNG.random((2, 4, 6)).astype(np.float32)
    maps[1, :, 3:] = 0
    labels = np.tile([0, 0, 0, 2, 2, 5], (4, 1))
    parts = cut_instance_maps(maps, labels)
    assert [k for k, _ in parts] == [0, 0, 0, 1]  # the second map is 0 in the other clusters
    np.testing.assert_array_equal(sum(part for k, part in parts if k == 0), maps[0])
    for (k, part), label in zip(parts, (0, 2, 5, 0), strict=True):
        assert part.dtype == np.float32
        np.testing.assert_array_equal(part, maps[k] * (labels == label))
    assert cut_instance_maps(maps[:0], labels) == []


def test_touching_objects_of_one_class_are_told_apart():
    owner, field = halves()
    found = find_instances(np.ones((1, 12, 24)), field, same, (48, 96))
    assert [(one.class_index, one.score, one.mask.dtype) for one in found] == [(0, 1.0, bool)] * 2
    masks = sorted((one.mask for one in found), key=lambda mask: not mask[0, 0])
    for number, mask in enumerate(masks):
        np.testing.assert_array_equal(mask, (owner == number).repeat(4, 0).repeat(4, 1))


def test_classes_scores_and_order(device):
    """Class 0 is on the left and weaker, class 1 on the right; the maximum is shared, and the best comes first."""
    owner, field = halves()
    maps = np.stack([np.where(owner == 0, 1.2, 0), np.where(owner == 1, 2.0, 0.1)])
    asked = []

    def spread(planes):
        asked.append(planes)
        return torch.from_numpy(planes).to(device) * 3

    there = [torch.from_numpy(x).to(device) for x in (maps, field)]
    first, second = find_instances(*there, spread, (48, 96))
    assert (first.class_index, second.class_index) == (1, 0)
    assert first.score == pytest.approx(1)
    assert second.score == pytest.approx(0.6)
    assert len(asked) == 1
    assert asked[0].shape == (3, 12, 24)  # class 0 left; class 1 left and right
    np.testing.assert_array_equal(asked[0].sum(0), maps.sum(0))
    assert not (first.mask & second.mask).any()


def test_the_background_threshold_is_exclusive():
    owner, field = halves()
    maps = np.where(owner == 0, 0.25, 1.0)[None]
    assert len(find_instances(maps, field, same, (48, 96))) == 1  # 0.25 is background, as in an argmax with it in front
    assert len(find_instances(maps, field, same, (48, 96), threshold=0.2)) == 2
    assert len(find_instances(maps, field, same, (48, 96), threshold=0)) == 2


def test_the_size_of_the_photograph_is_kept():
    _, field = halves()
    for size in ((45, 93), (48, 96), (46, 95)):
        masks = [one.mask for one in find_instances(np.ones((1, 12, 24)), field, same, size)]
        assert all(mask.shape == size for mask in masks)
        assert sum(masks).min() == sum(masks).max() == 1


def test_one_maximum_over_what_is_seen():
    """What lies beyond the photograph in the last position does not count."""
    field = np.zeros((2, 1, 2))
    maps = np.array([[[0.1, 1.0]]])
    (one,) = find_instances(maps, field, same, (1, 5))
    enlarged = [0.1, 0.1, 0.2125, 0.4375, 0.6625]
    assert one.score == 1
    np.testing.assert_array_equal(one.mask, [[v / 0.6625 > 0.25 for v in enlarged]])


def test_fragments_are_dropped():
    field = np.zeros((2, 20, 20))
    maps = np.zeros((1, 20, 20))
    maps[0, 2:10, 2:10] = 1
    maps[0, 15, 15] = 0.9  # 16 of 6400 pixels, some more for the threshold of 0.25
    every = find_instances(maps, field, same, (80, 80), smallest=0)
    assert len(every) == 2
    small = int(every[1].mask.sum())
    assert small < 64 < every[0].mask.sum()
    assert len(find_instances(maps, field, same, (80, 80))) == 1
    assert len(find_instances(maps, field, same, (80, 80), smallest=small / 6400)) == 2  # as large as that stays
    assert len(find_instances(maps, field, same, (80, 80), smallest=(small + 1) / 6400)) == 1


def test_pieces_of_one_cluster_are_objects_of_their_own():
    """As in IRN's code; each has the score of its own largest value."""
    maps = np.zeros((1, 20, 20))
    maps[0, 2:8, 2:8], maps[0, 12:18, 12:18] = 0.5, 1
    found = find_instances(maps, np.zeros((2, 20, 20)), same, (80, 80))
    assert [one.score for one in found] == [1.0, 0.5]
    assert found[0].mask[60, 60]
    assert found[1].mask[20, 20]


@pytest.mark.filterwarnings("error")
def test_nothing_to_find():
    field = np.zeros((2, 4, 6))
    never = pytest.fail
    assert find_instances(np.zeros((0, 4, 6)), field, never, (16, 24)) == []
    assert find_instances(np.zeros((3, 4, 6)), field, never, (16, 24)) == []
    assert find_instances(np.ones((1, 4, 6)), field, np.zeros_like, (16, 24)) == []


ONES, STILL = np.ones((1, 4, 6)), np.zeros((2, 4, 6))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: find_centroids(np.zeros((3, 4, 6))), r"displacement is float64 \[3, 4, 6\]; give floats \[2,h,w\]"),
        (lambda: find_centroids(np.zeros((2, 0, 6))), r"\[2, 0, 6\]; give floats"),
        (lambda: find_centroids(np.full((2, 4, 6), np.nan)), "displacement holds nan"),
        (lambda: find_centroids(STILL, -1), "steps=-1; give"),
        (lambda: find_centroids(STILL, 1.5), "steps=1.5; give"),
        (lambda: cluster_positions(STILL, np.zeros((2, 4, 6))), r"centroids are float64 .* give integers \[2, 4, 6\]"),
        (lambda: cluster_positions(STILL, np.zeros((2, 4, 5), int)), r"give integers \[2, 4, 6\]"),
        (lambda: cluster_positions(STILL, np.full((2, 4, 6), 4)), "off the 4x6 grid"),
        (lambda: cluster_positions(STILL, np.full((2, 4, 6), -1)), "off the 4x6 grid"),
        (lambda: cluster_positions(STILL, find_centroids(STILL), 0), "threshold=0; give a length above 0"),
        (lambda: cut_instance_maps(np.ones((1, 4, 5)), np.zeros((4, 6), int)), r"\[1, 4, 5\]; give floats \[K,4,6\]"),
        (lambda: cut_instance_maps(-ONES, np.zeros((4, 6), int)), "negative"),
        (lambda: find_instances(ONES, STILL, same, (17, 24)), "photograph 17x24, whose grid of stride 4 is 5x6"),
        (lambda: find_instances(ONES, STILL, same, 16), "size=16; give"),
        (lambda: find_instances(ONES, STILL, same, (16, 0)), r"size=\(16, 0\); give"),
        (lambda: find_instances(ONES, STILL, same, (16, 24), threshold=1), "threshold=1; give"),
        (lambda: find_instances(ONES, STILL, same, (16, 24), smallest=-0.1), "smallest=-0.1; give"),
        (lambda: find_instances(ONES * np.nan, STILL, same, (16, 24)), "maps hold nan"),
        (lambda: find_instances(ONES, STILL, lambda maps: maps[0], (16, 24)), r"spread made float64 \[4, 6\]"),
        (lambda: find_instances(ONES, STILL, lambda maps: maps / 0 * 0, (16, 24)), "must return finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered.*:RuntimeWarning")
def test_bad_input(call, said):
    with pytest.raises(InputError, match=said):
        call()
