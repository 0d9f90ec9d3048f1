"""Deletion and insertion against numbers by hand and against a loop that changes one pixel after another."""

from __future__ import annotations

import pytest
import torch
from numpy.testing import assert_allclose
from planted import colours, draw
from scipy import ndimage

import camplug
from camplug import InputError
from camplug.explain.batch import check_batch
from camplug.trust import ClassScore, area_under_curve, deletion_curve, insertion_curve, make_baseline, rank_pixels


def summed(x, owners):
    return x.sum((1, 2, 3))


ONE = torch.tensor([[[[4.0, 3.0], [2.0, 1.0]]]])
MAP = torch.tensor([[[0.9, 0.5], [0.7, 0.1]]])


def test_deletion_by_hand(device):
    curve = deletion_curve(summed, ONE.to(device), MAP.to(device), steps=4)
    assert curve.tolist() == [[10, 6, 4, 1, 0]]  # 4 goes first, then 2, 3 and 1
    assert area_under_curve(curve).tolist() == [(10 / 2 + 6 + 4 + 1) / 4]


def test_insertion_by_hand(device):
    curve = insertion_curve(summed, ONE.to(device), MAP.to(device), baseline="mean", steps=2)
    assert curve.tolist() == [[10, 4 + 2 + 2.5 + 2.5, 10]]


def loop(score, first, last, heat, steps):
    """One pixel after another, in the order of the map."""
    pixels = heat.numel()
    order = heat.flatten().argsort(descending=True).tolist()
    image, found = first.clone(), []
    wanted = [round(pixels * k / steps) for k in range(steps + 1)]
    for count in range(pixels + 1):
        if count in wanted:
            found.append(score(image[None]).item())
        if count < pixels:
            y, x = divmod(order[count], heat.shape[1])
            image[:, y, x] = last[:, y, x]
    return found


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_curves_equal_a_loop_whatever_the_batch(batch_size, device):
    model = colours(device, torch.float64)
    x = torch.rand(2, 3, 10, 12, generator=torch.manual_seed(1), dtype=torch.float64).to(device)
    maps = torch.rand(2, 10, 12, generator=torch.manual_seed(2), dtype=torch.float64).to(device)
    score = ClassScore(model, check_batch(model, x), [0, 2])
    base = make_baseline(x, "blur")
    deleted = deletion_curve(score, x, maps, baseline=base, steps=7, batch_size=batch_size)
    inserted = insertion_curve(score, x, maps, steps=7, batch_size=batch_size)
    for i, c in enumerate([0, 2]):

        def own(image, c=c):
            return model(image).softmax(1)[0, c]

        assert deleted[i].tolist() == pytest.approx(loop(own, x[i], base[i], maps[i], 7), abs=1e-12)
        assert inserted[i].tolist() == pytest.approx(loop(own, base[i], x[i], maps[i], 7), abs=1e-12)


def test_a_faithful_map_beats_its_opposite():
    model, x = colours(), draw()
    maps = camplug.GradCAM(model, "0").maps(x, 0)
    score = ClassScore(model, check_batch(model, x), 0)
    good, bad = (area_under_curve(deletion_curve(score, x, m)).item() for m in (maps, -maps))
    assert good < 0.4 < bad
    good, bad = (area_under_curve(insertion_curve(score, x, m)).item() for m in (maps, -maps))
    assert bad < good


def test_equal_values_are_ordered_at_random_and_reproducibly():
    flat = torch.zeros(1, 8, 8)
    ranks = rank_pixels(flat)
    assert sorted(ranks.flatten().tolist()) == list(range(64))
    assert ranks.flatten().tolist() != list(range(64))
    assert torch.equal(ranks, rank_pixels(flat))
    assert not torch.equal(ranks, rank_pixels(flat, seed=1))


def test_blur_is_that_of_scipy():
    x = torch.rand(2, 3, 30, 41, generator=torch.manual_seed(0), dtype=torch.float64)
    wanted = ndimage.gaussian_filter(x.numpy(), (0, 0, 1.5, 1.5), mode="nearest", radius=(0, 0, 5, 5))
    assert_allclose(make_baseline(x, "blur"), wanted, rtol=1e-12)


def test_blur_keeps_constants_and_the_mean_of_a_point():
    assert torch.allclose(make_baseline(torch.full((1, 2, 30, 40), 3.0), "blur"), torch.tensor(3.0))
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    blurred = make_baseline(point, "blur")
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    assert (blurred[..., 20, 20] / blurred[..., 20, 22]).item() == pytest.approx(2.7182818 ** (2 / 2.05**2), rel=1e-4)


def test_what_is_refused():
    with pytest.raises(InputError, match="one map"):
        deletion_curve(summed, ONE, MAP[0])
    with pytest.raises(InputError, match="NaN"):
        deletion_curve(summed, ONE, MAP * torch.nan)
    with pytest.raises(InputError, match="at least 1"):
        deletion_curve(summed, ONE, MAP, steps=0)
    with pytest.raises(InputError, match="at least 1"):
        deletion_curve(summed, ONE, MAP, batch_size=0)
    with pytest.raises(InputError, match="allowed are 'blur'"):
        deletion_curve(summed, ONE, MAP, baseline="black")
    with pytest.raises(InputError, match="the baseline is"):
        deletion_curve(summed, ONE, MAP, baseline=torch.zeros(5, 5))


@pytest.mark.parametrize("link", ["softmax", "sigmoid", "probabilities", "against", "negative"])
def test_scores_are_probabilities(link, device):
    model, x = colours(device), torch.rand(2, 3, 8, 8).to(device)
    logits = model(x)
    options, classes = {}, [1, 2]
    expected = logits.softmax(1)
    if link == "sigmoid":
        options["inclusive"], expected = True, logits.sigmoid()
    elif link == "probabilities":
        model = torch.nn.Sequential(model, torch.nn.Sigmoid())
        expected = logits.sigmoid()
    elif link == "against":
        classes, expected = [camplug.Against(1), camplug.Against(2)], 1 - expected
    elif link == "negative":
        options["evidence"], expected = "negative", 1 - expected
    score = ClassScore(model, check_batch(model, x), classes, **options)
    assert torch.allclose(score(x, [0, 1]), expected[[0, 1], [1, 2]])
    assert torch.allclose(score(x.flip(0), [1, 0]), expected[[1, 0], [2, 1]])


def test_scores_are_of_one_class_per_image():
    model, x = colours(), torch.rand(2, 3, 8, 8)
    with pytest.raises(InputError, match="callable"):
        ClassScore(model, check_batch(model, x), lambda output: output[:, 0])
    with pytest.raises(InputError, match="image 1 has 2 classes"):
        ClassScore(model, check_batch(model, x), [[0], [1, 2]])


def test_the_original_images_are_not_run_again():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).double()
    x, maps = torch.randn(2, 3, 6, 6, dtype=torch.float64), torch.rand(2, 6, 6)
    score, runs = ClassScore(model, check_batch(model, x), [0, 1]), []
    model.register_forward_hook(lambda module, args, out: runs.extend(out))
    known = deletion_curve(score, x, maps, steps=3)
    assert len(runs) == 2 * 3
    unknown = deletion_curve(score.__call__, x, maps, steps=3)
    assert len(runs) == 2 * 3 + 2 * 4
    torch.testing.assert_close(known, unknown, rtol=1e-12, atol=0)
