"""Pixel rectification: golden numbers and a slow loop with gradients."""

from __future__ import annotations

import pytest
import torch
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.fpr import Prototypes, false_positive_pixels, pixel_rectification_loss

_on_the_device = everywhere("false_positive_pixels", "pixel_rectification_loss")


def made(positive, negative, usable):
    return Prototypes(positive, negative, [torch.as_tensor(x, dtype=torch.bool) for x in usable])


def row(*values):
    """Features (x, 0) in one row of pixels: [1,2,1,P]."""
    return torch.tensor([[[values], [[0.0] * len(values)]]]).view(1, 2, 1, -1)


def points(*values):
    return torch.tensor([[x, 0.0] for x in values]).view(-1, 2)


def scene(n=3, classes=4, channels=5, size=(4, 5)):
    features = torch.randn(n, channels, *size, dtype=torch.float64, requires_grad=True)
    maps = torch.randn(n, classes, *size, dtype=torch.float64)
    maps[0, 0] = -1
    present = torch.ones(n, classes)
    present[1, 1] = 0
    counts = [3, 4, 2, 0], [2, 5, 0, 1]
    positive, negative = ([torch.randn(k, channels, dtype=torch.float64) for k in part] for part in counts)
    usable = [[True, True], [True, False, True, False, True], [], [True]]
    return features, maps.requires_grad_(), present, made(positive, negative, usable)


def looped(features, maps, present, prototypes, theta):
    found = torch.zeros(maps.shape, dtype=torch.bool)
    for n, c, y, x in torch.ones(maps.shape).nonzero().tolist():
        rectified = maps[n, c].detach().clamp(min=0)
        f = features[n, :, y, x].detach()
        own = [float(((f - p) ** 2).sum()) for p in prototypes.positive[c]]
        other = [
            float(((f - p) ** 2).sum())
            for p, keep in zip(prototypes.negative[c], prototypes.usable[c], strict=True)
            if keep
        ]
        lit = rectified[y, x] / (rectified.max() + 1e-4) > theta
        found[n, c, y, x] = bool(present[n, c] and lit and own and other and min(other) < min(own))
    return found


def test_golden_numbers():
    """Positive at 0 and 11, negative at 4: pixels 3 and 6 are nearer to it, 6 is dim; 2 and 7.5 are tied."""
    features = row(3, 2, 1, 6, 7.5)
    maps = torch.tensor([[[[2.0, 5.0, 5.0, 0.2, 4.0]]]], requires_grad=True)
    prototypes = made([points(0, 11)], [points(4)], [[True]])
    assert false_positive_pixels(features, maps, torch.ones(1, 1), prototypes).tolist() == [
        [[[True, False, False, False, False]]]
    ]
    found = pixel_rectification_loss(features, maps, torch.ones(1, 1), prototypes, theta=0.01)
    found.loss.backward()
    assert float(found.loss.detach()) == pytest.approx((2 + 0.2) / 2)
    assert int(found.pixels) == 2
    assert maps.grad.tolist() == [[[[0.5, 0.0, 0.0, 0.5, 0.0]]]]


def test_value_and_gradient_equal_a_loop():
    features, maps, present, prototypes = scene()
    expected = looped(features, maps, present, prototypes, 0.2)
    assert torch.equal(false_positive_pixels(features, maps, present, prototypes, theta=0.2), expected)
    found = pixel_rectification_loss(features, maps, present, prototypes, theta=0.2)
    assert int(found.pixels) == expected.sum() > 5
    slow = sum(maps[tuple(place)] for place in expected.nonzero().tolist()) / int(expected.sum())
    assert float(found.loss.detach()) == pytest.approx(float(slow.detach()), rel=1e-12)
    (one,) = torch.autograd.grad(found.loss, maps)
    (other,) = torch.autograd.grad(slow, maps)
    assert torch.allclose(one, other)


def test_large_features_close_to_each_other_are_told_apart():
    """Far from the origin |a|^2 - 2 a b + |b|^2 would lose these gaps in float32."""
    near = torch.randn(200, 64, 1, 1) * 0.01
    prototypes = made([torch.full((1, 64), 300.01)], [torch.full((1, 64), 299.99)], [[True]])
    features = 300 + near
    expected = (features - 299.99).square().sum(1) < (features - 300.01).square().sum(1)
    found = false_positive_pixels(features, torch.ones(200, 1, 1, 1), torch.ones(200, 1), prototypes)[:, 0]
    assert (found != expected).sum() <= 2
    assert 50 < found.sum() < 150


def test_gradient_reaches_the_head_and_its_features_through_the_maps():
    features, _, present, prototypes = scene()
    head = torch.nn.Conv2d(5, 4, 1, bias=False).double()
    found = pixel_rectification_loss(features, head(features), present, prototypes)
    found.loss.backward()
    mask = false_positive_pixels(features, head(features), present, prototypes)
    expected = torch.einsum("nchw,cd->ndhw", mask.double(), head.weight[:, :, 0, 0]) / mask.sum()
    assert head.weight.grad.any()
    assert torch.allclose(features.grad, expected)


@pytest.mark.parametrize("case", ["absent", "dark", "no positives", "no negatives", "none usable", "no images"])
def test_nothing_found_gives_0_with_a_graph(case):
    features, maps, present = row(4.0, 4.0), torch.ones(1, 1, 1, 2, requires_grad=True), torch.ones(1, 1)
    positive, negative, usable = points(0), points(4), [[True]]
    maps = maps * -1 if case == "dark" else maps
    present = present * 0 if case == "absent" else present
    if case == "no positives":
        positive = points()
    if case == "no negatives":
        negative, usable = points(), [[]]
    if case == "none usable":
        usable = [[False]]
    if case == "no images":
        features, maps, present = features[:0], maps[:0], present[:0]
    found = pixel_rectification_loss(features, maps, present, made([positive], [negative], usable))
    (gradient,) = torch.autograd.grad(found.loss, maps)
    assert float(found.loss.detach()) == int(found.pixels) == 0
    assert not gradient.any()


def test_half_precision_and_autocast(device):
    features, maps = row(3, 1.5, 1, 6).bfloat16(), torch.ones(1, 1, 1, 4, dtype=torch.bfloat16)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = pixel_rectification_loss(features, maps, torch.ones(1, 1), made([points(0, 10)], [points(4)], [[True]]))
    assert found.loss.dtype == torch.float32
    assert (float(found.loss.detach()), int(found.pixels)) == (1, 2)


def test_refused():
    prototypes = made([points(0)], [points(4)], [[True]])
    with pytest.raises(InputError, match=r"features \[1, 2, 1, 3\] and class maps \[1, 1, 1, 2\] do not fit"):
        pixel_rectification_loss(row(1, 2, 3), torch.ones(1, 1, 1, 2), torch.ones(1, 1), prototypes)
    with pytest.raises(InputError, match="theta=1; the threshold"):
        pixel_rectification_loss(row(1, 2), torch.ones(1, 1, 1, 2), torch.ones(1, 1), prototypes, theta=1)
