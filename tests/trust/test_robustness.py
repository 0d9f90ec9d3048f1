"""Max-sensitivity and infidelity: numbers by hand, slow references, and Captum where it is installed."""

from __future__ import annotations

import pytest
import torch
from planted import colours, draw

import camplug
from camplug import InputError
from camplug.explain.batch import check_batch
from camplug.trust import ClassScore, infidelity, max_sensitivity, mean_squared_misfit
from camplug.trust.robustness import draw_squares


def test_max_sensitivity_of_a_linear_map(device):
    """The map is the image; its change is the noise, at most r in every pixel."""
    x = torch.ones(2, 1, 8, 8).to(device)
    x[1] *= 2
    seen = []

    def explain(changed, owners):
        seen.extend((changed[:, 0] - x[owners, 0]).cpu())
        return changed[:, 0]

    found = max_sensitivity(explain, x, x[:, 0], radius=0.1, samples=5, batch_size=3)
    sizes = [max(float(noise.norm()) for noise in seen[5 * i : 5 * i + 5]) for i in range(2)]
    assert found.tolist() == pytest.approx([sizes[0] / 8, sizes[1] / 16], rel=1e-5)
    assert all(0.09 < float(noise.abs().max()) <= 0.1 for noise in seen)
    assert found[0].item() == pytest.approx(0.1 / 3**0.5, rel=0.15)  # uniform noise


def test_max_sensitivity_does_not_depend_on_the_batch():
    model, x = colours(), draw()
    explainer = camplug.GradCAM(model, "0")
    maps = explainer.maps(x, 0)
    found = [
        max_sensitivity(lambda images, _: explainer.maps(images, 0), x, maps, samples=6, batch_size=b).item()
        for b in (1, 4, 6)
    ]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)
    assert 0 < found[0] < 0.1
    empty = max_sensitivity(lambda images, _: explainer.maps(images, 0), x, 0 * maps, samples=2)
    assert empty.isnan().all()
    with pytest.raises(InputError, match="samples"):
        max_sensitivity(lambda images, _: images[:, 0], x, maps, samples=0)


def test_misfit_by_hand():
    predicted, measured = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[2.0, 5.0], [1.0, 1.0]])
    assert mean_squared_misfit(predicted, measured, scaled=False).tolist() == pytest.approx([5, 1])
    # the factor is (2 + 10) / (1 + 4) = 2.4; what is left are 0.4 and -0.2
    assert mean_squared_misfit(predicted, measured).tolist() == pytest.approx([0.1, 1])


def test_a_map_that_adds_up_has_no_infidelity(device):
    """The score is the sum of the image; the image itself says what every square is worth."""
    x = torch.rand(2, 1, 12, 16, dtype=torch.float64).to(device)

    def score(images, owners):
        return images.sum((1, 2, 3))

    assert infidelity(score, x, x[:, 0], scaled=False).tolist() == pytest.approx([0, 0], abs=1e-20)
    assert infidelity(score, x, 7 * x[:, 0]).tolist() == pytest.approx([0, 0], abs=1e-20)
    assert infidelity(score, x, x[:, 0].flip(1)).min() > 0.01


def test_infidelity_equals_a_loop(device):
    model, x = colours(device, torch.float64), draw().double().to(device)
    heat = torch.rand(1, 24, 32, dtype=torch.float64).to(device)
    found = infidelity(ClassScore(model, check_batch(model, x), 1), x, heat, samples=9, scaled=False, batch_size=4)
    model.requires_grad_(False)
    before, misfits = model(x).softmax(1)[0, 1], []
    for square in draw_squares(9, (24, 32)).to(device):
        after = model(torch.where(square, torch.zeros_like(x), x)).softmax(1)[0, 1]
        misfits.append(float(heat[0][square].sum() - (before - after)) ** 2)
    assert found.item() == pytest.approx(sum(misfits) / 9, rel=1e-9)


def test_squares_are_squares_inside_the_image():
    for square in draw_squares(50, (16, 24)):
        rows, columns = square.any(1).sum(), square.any(0).sum()
        assert rows == columns
        assert 2 <= rows <= 8
        assert square.sum() == rows * columns


def test_infidelity_equals_captum():
    metrics = pytest.importorskip("captum.metrics", reason="Captum comes with the extra bench")
    model, x = colours(dtype=torch.float64), draw().double()
    heat = torch.rand(1, 24, 32, dtype=torch.float64)
    squares = draw_squares(8, (24, 32))
    todo = iter([squares])

    def perturb(inputs):
        chosen = next(todo)[:, None].expand(-1, 3, -1, -1)
        first = chosen.clone().double()
        first[:, 1:] = 0  # the map counts once, and not for every colour
        return first, torch.where(chosen, torch.zeros_like(inputs), inputs)

    theirs = metrics.infidelity(
        lambda images: model(images).softmax(1)[:, 0],
        perturb,
        x,
        heat[:, None].expand(-1, 3, -1, -1),
        n_perturb_samples=8,
        max_examples_per_batch=8,
        normalize=True,
    )
    ours = infidelity(ClassScore(model, check_batch(model, x), 0), x, heat, samples=8)
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-6)
