"""Score-CAM, Ablation-CAM, Eigen-Grad-CAM, occlusion and RISE against loops over single images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import relative_error
from torch import nn

import camplug
from camplug.explain import perturb
from camplug.explain.ablation_cam import ablation_cam
from camplug.explain.eigen_grad_cam import eigen_grad_cam
from camplug.explain.score_cam import score_cam

CLASSES = [[0, 2], [1]]


class Net(nn.Module):
    """Two convolutions and a head; `kind` makes the rest of the network depend on the number of images, or not."""

    def __init__(self, kind="plain"):
        super().__init__()
        self.first, self.last, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, 2, 1), nn.Linear(5, 3)
        self.kind, self.passes = kind, 0

    def forward(self, x):
        self.passes += len(x)
        n = len(x)
        x = self.last(self.first(x).relu())
        if self.kind == "counts":
            x = x.reshape(n, 5, *x.shape[2:])  # of the images that came in
        return self.head(x.relu().mean((2, 3)))


@pytest.fixture(params=["plain", "counts"])
def model(request, device):
    torch.manual_seed(0)
    return Net(request.param).double().eval().to(device)


@pytest.fixture
def x(device):
    return torch.randn(2, 3, 12, 16, generator=torch.Generator().manual_seed(1)).double().to(device)


def upscaled(m, size):
    return F.interpolate(m[None, None], size, mode="bilinear")[0, 0]


def finished(m, size):
    m = upscaled(m.clamp_min(0), size)
    return m / m.max() if m.max() > 0 else m


def features(model, image):
    return model.last(model.first(image).relu())[0].detach()


def score(model, image, c):
    return float(model(image)[0, c])


def check(explainer, x, slow):
    got = explainer.maps(x, CLASSES)
    for i, classes in enumerate(CLASSES):
        for k, c in enumerate(classes):
            assert relative_error(got[i][k], slow(x[i : i + 1], c)) <= 1e-9, (i, c)


@pytest.mark.parametrize("batch_size", [2, 32])
def test_score_cam(model, x, batch_size):
    def slow(image, c):
        a, scores = features(model, image), []
        for channel in a:
            mask = upscaled(channel, image.shape[2:])
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            scores.append(score(model, image * mask, c))
        weights = np.exp(scores) / np.exp(scores).sum()
        return finished(sum(w * channel for w, channel in zip(weights, a, strict=True)), image.shape[2:])

    check(camplug.ScoreCAM(model, "last", batch_size=batch_size), x, slow)


@pytest.mark.parametrize("batch_size", [2, 32])
def test_ablation_cam(model, x, batch_size):
    def slow(image, c):
        a, y, total = features(model, image), score(model, image, c), 0
        for k, channel in enumerate(a):
            changed = a.clone()
            changed[k] = 0
            without = float(model.head(changed.relu().mean((1, 2)))[c])
            total = total + (y - without) / abs(y) * channel
        return finished(total, image.shape[2:])

    check(camplug.AblationCAM(model, "last", batch_size=batch_size), x, slow)


def test_ablation_runs_the_early_part_once(device):
    for kind, passes in (("plain", 4), ("counts", 9)):  # the images; the score; one that tries; one chunk, or one each
        model = Net(kind).eval().to(device)
        explainer, image = camplug.AblationCAM(model, "last"), torch.randn(1, 3, 12, 16).to(device)
        explainer.maps(image, 0)
        model.passes = 0
        explainer.maps(image, 0)
        assert model.passes == passes - (kind == "counts")


def test_ablation_of_tokens(device):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.cut, self.mix, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.mix(self.cut(x).flatten(2).transpose(1, 2)).relu().mean(1))

    torch.manual_seed(0)
    model, x = Tokens().double().eval().to(device), torch.randn(1, 3, 16, 12).double().to(device)
    got, tokens, y = camplug.AblationCAM(model, "mix").maps(x, 1)[0], None, model(x)[0, 1]
    tokens, total = model.mix(model.cut(x).flatten(2).transpose(1, 2)).detach(), 0
    for k in range(6):
        changed = tokens.clone()
        changed[..., k] = 0
        total = total + (y - model.head(changed.relu().mean(1))[0, 1]) / y.abs() * tokens[0, :, k].reshape(4, 3)
    assert relative_error(got, finished(total.detach(), (16, 12))) <= 1e-9


def test_formulas_by_hand():
    a = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])
    torch.testing.assert_close(score_cam(a, torch.log(torch.tensor([[1.0, 3.0]]))), torch.tensor([[[2.5, 0.0]]]))
    torch.testing.assert_close(score_cam(a, torch.tensor([[0.0, float("-inf")]])), torch.tensor([[[1.0, 2.0]]]))
    assert score_cam(a, torch.full((1, 2), float("-inf"))).abs().max() == 0
    want = torch.tensor([[[0.5 * 1 + 0.25 * 3, 0.5 * 2 - 0.25]]])
    torch.testing.assert_close(ablation_cam(a, torch.tensor([4.0]), torch.tensor([[2.0, 3.0]])), want)
    torch.testing.assert_close(ablation_cam(a, torch.tensor([-4.0]), torch.tensor([[-6.0, -5.0]])), want)
    g = torch.tensor([[[[1.0, 0.0]], [[2.0, 0.0]]]])
    torch.testing.assert_close(eigen_grad_cam(a, g), torch.tensor([[[37**0.5, 0.0]]]))


def test_eigen_grad_cam(model, x):
    def slow(image, c):
        a = model.last(model.first(image).relu())
        (g,) = torch.autograd.grad(model.head(a.relu().mean((2, 3)))[0, c], a)
        return finished(eigen_grad_cam(a.detach(), g)[0], image.shape[2:])

    check(camplug.EigenGradCAM(model, "last"), x, slow)


@pytest.mark.parametrize(("window", "stride"), [(4, 3), (None, None), (12, 5)])
def test_occlusion(model, x, window, stride):
    def slow(image, c):
        y, total, count = score(model, image, c), torch.zeros(12, 16), torch.zeros(12, 16)
        side = window or 1
        step = stride or 1
        tops = sorted({*range(0, 12 - side + 1, step), 12 - side})
        for top in tops:
            for left in sorted({*range(0, 16 - side + 1, step), 16 - side}):
                changed = image.clone()
                changed[0, :, top : top + side, left : left + side] = image[0].mean((1, 2))[:, None, None]
                total[top : top + side, left : left + side] += y - score(model, changed, c)
                count[top : top + side, left : left + side] += 1
        m = (total / count).clamp_min(0)
        return m / m.max() if m.max() > 0 else m

    got = camplug.Occlusion(model, window, stride, batch_size=5).maps(x, CLASSES)
    for i, classes in enumerate(CLASSES):
        for k, c in enumerate(classes):
            assert relative_error(got[i][k], slow(x[i : i + 1], c)) <= 1e-6


def test_rise(model, x):
    masks = perturb.make_rise_masks(20, 3, 0.5, (12, 16), torch.Generator().manual_seed(5))
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert 0.3 < masks.mean() < 0.7

    def slow(image, c):
        total = torch.zeros(12, 16).double()
        generator = torch.Generator().manual_seed(5)  # in the chunks of the explainer
        for count in (8, 8, 4):
            for mask in perturb.make_rise_masks(count, 3, 0.5, (12, 16), generator).double():
                total += float(model(image * mask.to(image)).softmax(1)[0, c]) * mask
        return total / total.max()

    check(camplug.RISE(model, 20, 3, seed=5, batch_size=8), x, slow)


@pytest.mark.parametrize("method", ["scorecam", "ablationcam", "occlusion", "rise"])
def test_scores_that_are_no_class_and_evidence_against_one(method, model, x):
    options = {"masks": 10} if method == "rise" else {}
    if method != "rise":
        by_class = camplug.create(method, model, **options).maps(x, 1)
        assert relative_error(camplug.create(method, model, **options).maps(x, lambda y: y[:, 1]), by_class) <= 1e-9
        against = camplug.create(method, model, evidence="negative", **options).maps(x, 1)
        called = camplug.create(method, model, **options).maps(x, lambda y: -y[:, 1])
        assert relative_error(against, called) <= 1e-9
    assert [len(m) for m in camplug.create(method, model, **options).maps(x, [[], [0, 1]])] == [0, 2]


def test_refusals(model, x):
    with pytest.raises(camplug.InputError, match="batch_size=0; give a whole number of at least 1"):
        camplug.ScoreCAM(model, batch_size=0)
    with pytest.raises(camplug.InputError, match=r"window=2\.5; give a whole number of pixels"):
        camplug.Occlusion(model, 2.5)
    with pytest.raises(camplug.InputError, match=r"masks=0, cells=7, p=0\.5; give whole numbers"):
        camplug.RISE(model, 0)
    with pytest.raises(camplug.LayerError, match="AblationCAM sets channels of the layer 'last' to 0"):
        camplug.AblationCAM(model, "last", reshape=lambda t: t).maps(x, 0)
