"""ROAD: imputation against a dense system and by hand, and the score of known images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import colours, draw

import camplug
from camplug import InputError
from camplug.explain.batch import check_batch
from camplug.trust import ClassScore, impute_pixels, road, road_curve
from camplug.trust.imputation import order_by_dissection

WEIGHTS = {1: 1 / 6, 2: 1 / 12}  # by the squared distance


def dense(image, removed):
    """The same system with all pairs of pixels, without SciPy."""
    image, removed = image.double().numpy(), removed.numpy()
    places = [tuple(p) for p in np.argwhere(removed)]
    a, b = np.zeros((len(places), len(places))), np.zeros((len(places), len(image)))
    for i, (y, x) in enumerate(places):
        for v in range(removed.shape[0]):
            for u in range(removed.shape[1]):
                w = WEIGHTS.get((v - y) ** 2 + (u - x) ** 2, 0)
                a[i, i] += w
                if removed[v, u]:
                    a[i, places.index((v, u))] -= w
                else:
                    b[i] += w * image[:, v, u]
    filled = image.copy()
    for place, colour in zip(places, np.linalg.solve(a, b), strict=True):
        filled[(slice(None), *place)] = colour
    return torch.from_numpy(filled)


def test_one_pixel_by_hand():
    image = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 99.0, 6.0], [7.0, 8.0, 19.0]]])
    removed = torch.zeros(3, 3, dtype=torch.bool)
    removed[1, 1] = True
    filled = impute_pixels(image, removed, noise=0)
    assert filled[0, 1, 1].item() == pytest.approx((2 + 4 + 6 + 8) / 6 + (1 + 3 + 7 + 19) / 12)
    removed[:] = False
    removed[0, 0] = True  # a corner has 1/6 + 1/6 + 1/12 of the weights
    filled = impute_pixels(image, removed, noise=0)
    assert filled[0, 0, 0].item() == pytest.approx(((2 + 4) / 6 + 99 / 12) / (5 / 12))
    assert torch.equal(filled.flatten()[1:], image.flatten()[1:])


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_imputation_equals_a_dense_system(share, device):
    image = torch.randn(2, 7, 9, dtype=torch.float64)
    removed = torch.rand(7, 9) < share
    filled = impute_pixels(image.to(device), removed.to(device), noise=0)
    assert torch.allclose(filled.cpu(), dense(image, removed), atol=1e-10)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (5, 6), (13, 8)])
def test_the_order_of_the_system_names_every_pixel_once_and_lines_after_their_sides(size):
    order = order_by_dissection(*size).tolist()
    assert sorted(order) == list(range(size[0] * size[1]))
    if size == (5, 6):
        assert order[-5:] == [3, 9, 15, 21, 27]  # the line in the middle of the longer side


def test_noise_is_seeded_and_only_where_pixels_are_removed():
    image, removed = torch.zeros(1, 40, 40), torch.zeros(40, 40, dtype=torch.bool)
    removed[5:35, 5:35] = True
    filled = impute_pixels(image, removed, noise=0.5)
    assert torch.equal(filled, impute_pixels(image, removed, noise=0.5))
    assert (filled[0][~removed] == 0).all()
    assert filled[0][removed].std().item() == pytest.approx(0.5, rel=0.1)
    assert torch.equal(impute_pixels(image, torch.zeros_like(removed)), image)


def test_road_of_a_sum_by_hand():
    """Removing a bright pixel among dark ones leaves the dark; removing a dark one leaves it nearly as it was."""
    image = torch.zeros(1, 1, 1, 4)
    image[..., 0] = 1.0
    heat = torch.tensor([[[4.0, 3.0, 2.0, 1.0]]])

    def score(x, owners):
        return x.sum((1, 2, 3))

    morf = road_curve(score, image, heat, order="morf", fractions=[0.25, 0.5], noise=0)
    lerf = road_curve(score, image, heat, order="lerf", fractions=[0.25, 0.5], noise=0)
    assert morf.tolist() == [pytest.approx([0, 0])]
    assert lerf.tolist() == [pytest.approx([1, 1])]
    assert road(score, image, heat, fractions=[0.25, 0.5], noise=0).tolist() == [pytest.approx(0.5)]


def test_a_faithful_map_is_above_chance_and_its_opposite_below(device):
    model, x = colours(device), draw().to(device)
    maps = camplug.GradCAM(model, "0").maps(x, 0)
    score = ClassScore(model, check_batch(model, x), 0)
    good, bad = (road(score, x, m, fractions=[0.1, 0.3], batch_size=3).item() for m in (maps, -maps))
    assert good > 0.1
    assert good == pytest.approx(-bad, abs=0.05)


def test_what_is_refused():
    x, heat = torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4)
    for fractions in ([], [0.0], [1.0]):
        with pytest.raises(InputError, match="fractions="):
            road_curve(lambda x, _: x, x, heat, fractions=fractions)
    with pytest.raises(InputError, match="order="):
        road_curve(lambda x, _: x, x, heat, order="first")
    with pytest.raises(InputError, match="all pixels"):
        impute_pixels(x[0], torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="the mask is"):
        impute_pixels(x[0], torch.ones(4, 5, dtype=torch.bool))
