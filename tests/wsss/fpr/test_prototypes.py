"""Centroids, and prototypes as plain tensors."""

from __future__ import annotations

import io
import sys
import warnings

import pytest
import torch
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.fpr import Prototypes, compute_centroids

_on_the_device = everywhere("compute_centroids")


def some():
    return Prototypes(
        [torch.randn(3, 2), torch.zeros(0, 2)],
        [torch.randn(1, 2), torch.randn(2, 2)],
        [torch.tensor([True]), torch.tensor([False, True])],
    )


def test_centroids_of_three_heaps():
    """Heaps of 4 points around (0, 0), (10, 0) and (0, 10): their centroids are the heaps' means."""
    corners = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    found = compute_centroids((corners[:, None] + cross).flatten(0, 1), clusters=3)
    assert torch.allclose(found[found[:, 0].argsort()].sort(0)[0], corners.sort(0)[0], atol=1e-5)
    assert {tuple(row) for row in found.round().add(0.0).tolist()} == {(0, 0), (10, 0), (0, 10)}


def test_centroids_of_few_points_are_the_points():
    points = torch.tensor([[2.0], [1.0], [2.0]])
    assert compute_centroids(points).tolist() == [[2.0], [1.0]]
    assert compute_centroids(torch.ones(50, 4)).tolist() == [[1.0] * 4]
    assert compute_centroids(torch.zeros(0, 4)).shape == (0, 4)


def test_nearly_identical_points_give_distinct_centroids_without_a_warning():
    points = 1 + torch.arange(12)[:, None] * 2.0**-23
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compute_centroids(points.repeat(3, 1))
    assert len(found) == len(found.unique(dim=0)) <= 10


def test_centroids_equal_a_fit_with_the_authors_settings():
    from sklearn.cluster import KMeans

    points = torch.randn(40, 3)
    expected = KMeans(n_clusters=10, n_init=10, max_iter=10, random_state=0).fit(points.numpy()).cluster_centers_
    assert torch.equal(compute_centroids(points), torch.from_numpy(expected))
    assert not torch.equal(compute_centroids(points), compute_centroids(points, seed=1))


def test_prototypes_survive_a_checkpoint(device):
    one, file = some(), io.BytesIO()
    torch.save(one.to(device).state_dict(), file)
    file.seek(0)
    other = Prototypes.from_state(torch.load(file, weights_only=True))
    for part in ("positive", "negative", "usable"):
        for x, y in zip(getattr(one, part), getattr(other, part), strict=True):
            assert torch.equal(x, y)


def test_prototypes_move(device):
    there = some().to(device)
    assert {x.device.type for part in (there.positive, there.negative, there.usable) for x in part} == {device.type}
    moved = some().to("meta")
    assert {x.device.type for part in (moved.positive, moved.negative, moved.usable) for x in part} == {"meta"}


def test_prototypes_side_by_side(device):
    """Class 1 has no positive ones, class 0 one negative less; the second class's first negative is not usable."""
    one = some()
    there = one.to(device)
    centre, negative, which, spread = (x.cpu() for x in there.padded)
    torch.testing.assert_close(centre, torch.stack([one.positive[0].mean(0), torch.zeros(2)]))
    assert torch.equal(negative, torch.stack([torch.cat([one.negative[0], torch.zeros(1, 2)]), one.negative[1]]))
    assert which.tolist() == [[True, False], [True, True]]
    torch.testing.assert_close(spread, one.spread)
    assert [x.tolist() for x in there.usable_negatives] == [one.negative[0].tolist(), one.negative[1][1:].tolist()]
    nothing = Prototypes([torch.zeros(0, 5)] * 2, [torch.zeros(0, 3)] * 2, [torch.zeros(0).bool()] * 2)
    assert [tuple(x.shape) for x in nothing.padded] == [(2, 0), (2, 0, 0), (2, 0), (2,)]
    assert nothing.usable_negatives == [None, None]


def test_scikit_learn_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(
        InputError, match=r'need the package scikit-learn; install it with: pip install "camplug\[train\]"'
    ):
        compute_centroids(torch.randn(20, 2))


@pytest.mark.parametrize(
    "parts, sentence",
    [
        (([torch.zeros(1, 2)], [], []), r"prototypes of 1, 0 and 0 classes; give"),
        (([torch.zeros(1, 2)], [torch.zeros(1, 3)], [torch.ones(1).bool()]), r"one D for all; got \[1, 2\], \[1, 3\]"),
        (([torch.zeros(1, 2)], [torch.zeros(1, 2)], [torch.ones(2).bool()]), r"one bool for every negative prototype"),
    ],
)
def test_refused(parts, sentence):
    with pytest.raises(InputError, match=sentence):
        Prototypes(*parts)


@pytest.mark.parametrize("state", [{}, {"positives": 3}, {**some().state_dict(), "negatives": torch.tensor([9, 9])}])
def test_other_states_are_refused(state):
    with pytest.raises(InputError, match="not a state of Prototypes; give what"):
        Prototypes.from_state(state)
