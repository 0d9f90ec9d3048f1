"""Equal to Quantus where it has the metric; images of one channel, since Quantus orders values of all channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from camplug.explain.batch import check_batch
from camplug.trust import (
    ClassScore,
    complexity,
    deletion_curve,
    energy_pointing_game,
    max_sensitivity,
    pointing_game,
    road_curve,
    sparseness,
)

pytestmark = pytest.mark.slow  # a long table of cases

quantus = pytest.importorskip("quantus", reason="Quantus comes with the extra bench")

PLAIN = {"disable_warnings": True, "display_progressbar": False, "abs": False, "normalise": False}
CLASSES = np.array([0, 1, 1])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()


@pytest.fixture
def images():
    return torch.randn(3, 1, 12, 12, generator=torch.manual_seed(1))


@pytest.fixture
def maps():
    return torch.rand(3, 12, 12, generator=torch.manual_seed(2))


def theirs(metric, model, images, maps, **more):
    return metric(model=model, x_batch=images.numpy(), y_batch=CLASSES, a_batch=maps[:, None].numpy(), **more)


def score_of(model, images):
    return ClassScore(model, check_batch(model, images), CLASSES.tolist())


def test_deletion_is_pixel_flipping(model, images, maps):
    metric = quantus.PixelFlipping(features_in_step=12, perturb_baseline=0.0, **PLAIN)
    expected = theirs(metric, model, images, maps, softmax=True)
    ours = deletion_curve(score_of(model, images), images, maps, steps=12)
    assert np.allclose(ours[:, 1:], np.array(expected), atol=1e-6)  # theirs begins after the first step


def test_road(model, images, maps):
    """Theirs is the share of images whose prediction stays; the score here says the same."""
    metric = quantus.ROAD(percentages=[25, 50, 75], noise=0.0, **PLAIN)
    expected = theirs(metric, model, images, maps, softmax=True)

    def stays(changed, owners):
        return (model(changed).argmax(1) == torch.from_numpy(CLASSES)[list(owners)]).float()

    ours = road_curve(stays, images, maps, fractions=[0.25, 0.5, 0.75], noise=0)
    assert ours.mean(0).tolist() == pytest.approx([float(expected[p]) for p in (25, 50, 75)])
    assert 0 < ours.mean() < 1


@pytest.mark.parametrize(("name", "ours"), [("Sparseness", sparseness), ("Complexity", complexity)])
def test_concentration(model, images, maps, name, ours):
    expected = theirs(getattr(quantus, name)(**PLAIN), model, images, maps)
    assert ours(maps).tolist() == pytest.approx([float(v) for v in expected], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "ours"), [("PointingGame", pointing_game), ("RelevanceMassAccuracy", energy_pointing_game)]
)
def test_pointing_games(model, images, maps, name, ours):
    masks = torch.zeros(3, 12, 12, dtype=torch.bool)
    masks[:, 2:9, 1:8] = True
    masks[0] = maps[0] > 0.9
    expected = theirs(getattr(quantus, name)(**PLAIN), model, images, maps, s_batch=masks[:, None].numpy())
    assert ours(maps, masks).tolist() == pytest.approx([float(v) for v in expected], rel=1e-5)


def test_max_sensitivity(model, images):
    """The explanation is the image; with the same noise, both give the same."""

    def explain(model, inputs, targets, **options):
        return np.asarray(inputs) ** 2

    noise = iter(range(100))

    def perturb(arr, indices, **options):
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.rand((5, 1, 12, 12), generator=generator) * 2 - 1 for _ in range(3)]
        k = next(noise) % 5
        return arr + 0.1 * np.stack([d[k].numpy().ravel() for d in drawn])

    metric = quantus.MaxSensitivity(nr_samples=5, perturb_func=perturb, **PLAIN)
    maps = images[:, 0] ** 2
    expected = theirs(metric, model, images, maps, explain_func=explain)
    ours = max_sensitivity(lambda x, _: x[:, 0] ** 2, images, maps, radius=0.1, samples=5, batch_size=5)
    assert ours.tolist() == pytest.approx([float(v) for v in expected], rel=1e-4)
