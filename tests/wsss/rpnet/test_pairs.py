"""Partners: who may be drawn, how often, and who stays alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from camplug.errors import InputError
from camplug.wsss.rpnet import Partners

LABELS = [[0, 1], [0], [1, 2], [0, 2], [3], [], [0, 5], [1, 1]]


@pytest.mark.parametrize("group", [1, 2, 3, 4])
def test_partners_share_the_class_and_are_others(group):
    partners = Partners(LABELS, group)
    rng = np.random.default_rng(0)
    for i, classes in enumerate(LABELS):
        others = {c: {j for j, shown in enumerate(LABELS) if j != i and c in shown} for c in set(classes)}
        for _ in range(40):
            images, chosen = partners.draw(i, rng)
            assert len(images) == group - 1
            if any(others.values()):
                assert others[chosen]
                assert set(images) <= others[chosen]
                assert len(set(images)) == min(group - 1, len(others[chosen]))
            else:
                assert images == [i] * (group - 1)
                assert chosen == (classes[0] if classes else -1)


def test_alone():
    assert Partners(LABELS).alone == [4, 5]
    assert Partners([[7]]).alone == [0]
    assert Partners([[7], [7]]).alone == []
    assert Partners([[7, 7], [8]]).alone == [0, 1]  # naming a class twice makes no pair


def test_classes_and_images_are_drawn_evenly():
    """Image 0 shows class 0 (with 1, 3, 6) and class 1 (with 2, 7): 1/6 each of the first, 1/4 each of the second."""
    partners, rng, draws = Partners(LABELS), np.random.default_rng(4), 4000
    found = Counter((partners.draw(0, rng)[0][0]) for _ in range(draws))
    expected = {1: 1 / 6, 3: 1 / 6, 6: 1 / 6, 2: 1 / 4, 7: 1 / 4}
    assert set(found) == set(expected)
    for image, share in expected.items():
        assert found[image] / draws == pytest.approx(share, abs=0.03)


def test_a_class_that_only_the_image_shows_is_never_drawn():
    partners, rng = Partners(LABELS), np.random.default_rng(1)
    assert {partners.draw(6, rng)[1] for _ in range(50)} == {0}


def test_a_small_class_repeats_its_images():
    partners = Partners([[2], [2], [2]], 4)
    for seed in range(10):
        images, chosen = partners.draw(1, np.random.default_rng(seed))
        assert chosen == 2
        assert sorted(set(images)) == [0, 2]
        assert images[2] == images[0]
    assert Partners([[2], [2]], 4).draw(0, np.random.default_rng(0)) == ([1, 1, 1], 2)


def test_the_generator_decides():
    partners = Partners([[0]] * 50, 4)
    one, same, other = (partners.draw(7, np.random.default_rng(seed)) for seed in (3, 3, 5))
    assert one == same != other
    assert all(type(j) is int for j in one[0])


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: Partners(LABELS, 0), "group=0; give 1 to 4 images"),
        (lambda: Partners(LABELS, 5), "group=5; give 1 to 4 images"),
        (lambda: Partners([]), "no image given; give the classes of at least one"),
        (lambda: Partners([[], []]), "none of the 2 images shows a class; give image-level labels"),
        (lambda: Partners([[0], [-1]]), "image 1 shows class -1; classes are whole numbers from 0"),
        (lambda: Partners(LABELS).draw(8, np.random.default_rng()), "image 8 does not exist; give 0 to 7"),
        (lambda: Partners(LABELS).draw(-1, np.random.default_rng()), "image -1 does not exist; give 0 to 7"),
    ],
)
def test_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
