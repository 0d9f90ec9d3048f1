"""Region contrast: golden numbers and a slow loop with gradients."""

from __future__ import annotations

import math

import pytest
import torch
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.fpr import Prototypes, distances, region_contrast_loss

_on_the_device = everywhere("distances", "region_contrast_loss")


def made(positive, negative, usable=None):
    negative = [torch.as_tensor(x, dtype=torch.float64).view(-1, 2) for x in negative]
    usable = [torch.ones(len(x)) for x in negative] if usable is None else usable
    positive = [torch.as_tensor(x, dtype=torch.float64).view(-1, 2) for x in positive]
    return Prototypes(positive, negative, [torch.as_tensor(x).bool() for x in usable])


def scene(n=3, classes=4, channels=5, size=(3, 4)):
    """Random tensors; class 2 has no negatives, class 3 no positives, one map of image 0 lights nothing."""
    features = torch.randn(n, channels, *size, dtype=torch.float64, requires_grad=True)
    maps = torch.randn(n, classes, *size, dtype=torch.float64)
    maps[0, 0] = -1
    present = torch.ones(n, classes)
    present[1, 1] = present[2, 0] = 0
    counts = [3, 4, 2, 0], [2, 5, 0, 1]
    positive, negative = ([torch.randn(k, channels, dtype=torch.float64) for k in part] for part in counts)
    usable = [torch.ones(len(x), dtype=torch.bool) for x in negative]
    return features, maps.requires_grad_(), present, Prototypes(positive, negative, usable)


def looped(features, maps, present, prototypes, theta, temperature, offset, kind):
    positive, negative, pairs = 0, 0, 0
    for n in range(len(maps)):
        for c in range(maps.shape[1]):
            rectified = maps[n, c].detach().clamp(min=0)
            share = rectified / (rectified.max() + 1e-4)
            inside = [features[n, :, y, x] for y in range(maps.shape[2]) for x in range(maps.shape[3])
                      if share[y, x] > theta]  # fmt: skip
            if not present[n, c] or not inside or not len(prototypes.positive[c]):
                continue
            f = sum(inside) / len(inside)

            def similarity(p, f=f):
                squares = [(f[j] - p[j]) ** 2 for j in range(len(f))]
                d2 = sum(s + 1e-4 for s in squares) / len(f) if kind == "rms" else sum(squares) + 1e-4
                return torch.exp(-(d2.sqrt() / temperature + offset))

            pairs += 1
            positive = positive - similarity(sum(prototypes.positive[c]) / len(prototypes.positive[c])).log()
            if len(prototypes.negative[c]):
                negative = negative - (1 - max(similarity(p) for p in prototypes.negative[c])).log()
    return positive / pairs, negative / pairs, pairs


def test_distances_golden_numbers():
    """Differences 3 and 4: sqrt(25 / 2 + 1e-4), and sqrt(25 + 1e-4)."""
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert float(distances(a, b)) == pytest.approx(math.sqrt(12.5001), rel=1e-6)
    assert float(distances(a, b, "l2")) == pytest.approx(math.sqrt(25.0001), rel=1e-6)
    assert float(distances(a, a)) == pytest.approx(0.01)


def test_golden_number():
    """f = ((1+3)/2, (0+4)/2) = (2, 2); centre (2, 5), d = 3; negatives 4 and 8 away, the nearer counts."""
    features = torch.tensor([[[[1.0, 9.0], [3.0, 9.0]], [[0.0, 9.0], [4.0, 9.0]]]], dtype=torch.float64)
    maps = torch.tensor([[[[5.0, 0.0], [1.0, -7.0]]]], dtype=torch.float64)
    prototypes = made([[[2, 4], [2, 6]]], [[[10, 2], [6, 2]]])
    found = region_contrast_loss(features, maps, torch.ones(1, 1), prototypes, temperature=2, offset=0, distance="l2")
    assert float(found.positive.detach()) == pytest.approx(1.5, abs=1e-4)
    assert float(found.negative.detach()) == pytest.approx(-math.log(1 - math.exp(-2)), abs=1e-4)
    assert float(found.loss.detach()) == pytest.approx(1.5 + 0.145413, abs=1e-4)
    assert int(found.pairs) == 1
    found = region_contrast_loss(features, maps, torch.ones(1, 1), prototypes)
    near, far = math.sqrt(9 / 2 + 1e-4) / 13 + 0.1, math.sqrt(16 / 2 + 1e-4) / 13 + 0.1
    assert float(found.loss.detach()) == pytest.approx(near - math.log(1 - math.exp(-far)), rel=1e-9)


def test_distances_in_units_of_the_class_own_spread():
    """Prototypes at (0, 0) and (4, 0): centre (2, 0), spread rms (2, 0) = sqrt 2. The region's mean is (6, 0).

    d = sqrt((16 + 0) / 2) = 2 sqrt 2 from the centre and sqrt(4 / 2) = sqrt 2 from the negative (8, 0), so 2 and 1
    spreads.
    """
    features = torch.tensor([6.0, 0.0], dtype=torch.float64).view(1, 2, 1, 1)
    prototypes = made([[[0.0, 0.0], [4.0, 0.0]]], [[[8.0, 0.0]]])
    assert prototypes.spread.tolist() == pytest.approx([math.sqrt(2)])
    maps, present = torch.ones(1, 1, 1, 1), torch.ones(1, 1)
    found = region_contrast_loss(features, maps, present, prototypes, temperature=1, offset=0, distance="spread")
    assert float(found.positive) == pytest.approx(2, abs=1e-4)
    assert float(found.negative) == pytest.approx(-math.log(1 - math.exp(-1)), abs=1e-4)


def test_spread_of_a_class_with_one_prototype():
    prototypes = made([[[0.0, 0.0], [4.0, 0.0]], [[1.0, 1.0]], []], [[], [], []])
    assert prototypes.spread.tolist() == pytest.approx([math.sqrt(2)] * 3)
    assert made([[[1.0, 1.0]]], [[]]).spread.tolist() == [1.0]


@pytest.mark.parametrize("kind, offset", [("rms", 0.1), ("l2", 0.0)])
def test_value_and_gradient_equal_a_loop(kind, offset):
    features, maps, present, prototypes = scene()
    found = region_contrast_loss(
        features, maps, present, prototypes, theta=0.3, temperature=3.0, offset=offset, distance=kind
    )
    positive, negative, pairs = looped(features, maps, present, prototypes, 0.3, 3.0, offset, kind)
    assert int(found.pairs) == pairs == 6
    assert float(found.positive.detach()) == pytest.approx(float(positive.detach()), rel=1e-10)
    assert float(found.negative.detach()) == pytest.approx(float(negative.detach()), rel=1e-10)
    assert float(found.loss.detach()) == pytest.approx(float((positive + negative).detach()), rel=1e-10)
    (one,) = torch.autograd.grad(found.loss, features)
    (other,) = torch.autograd.grad(positive + negative, features)
    assert torch.allclose(one, other, atol=1e-12)
    assert one.any()


def test_sums_of_shares_weigh_up_to_the_whole():
    features, maps, present, prototypes = scene()
    whole = region_contrast_loss(features, maps, present, prototypes)
    shares = [
        region_contrast_loss(features[i], maps[i], present[i], prototypes, reduction="sum")
        for i in (slice(0, 1), slice(1, 3))
    ]
    expected = sum(s.loss for s in shares) / sum(s.pairs for s in shares)
    assert torch.isclose(whole.loss, expected)


def test_gradient_goes_into_features_only():
    features, maps, present, prototypes = scene()
    for x in (*prototypes.positive, *prototypes.negative):
        x.requires_grad_()
    region_contrast_loss(features, maps, present, prototypes).loss.backward()
    assert features.grad.any()
    assert maps.grad is None
    assert all(x.grad is None for x in (*prototypes.positive, *prototypes.negative))


@pytest.mark.parametrize("temperature", [13.0, 1e9])
def test_a_region_on_its_negative_is_finite(temperature):
    """1 - S is at least 1e-5, and the distance at least 0.01."""
    features = torch.ones(1, 2, 1, 1, requires_grad=True)
    found = region_contrast_loss(
        features, torch.ones(1, 1, 1, 1), torch.ones(1, 1), made([[1, 1]], [[1, 1]]), temperature=temperature, offset=0
    )
    found.loss.backward()
    expected = -math.log(1 - math.exp(-0.01 / 13)) if temperature == 13 else -math.log(1e-5)
    assert float(found.negative.detach()) == pytest.approx(expected, rel=1e-4)
    assert features.grad.isfinite().all()


def test_the_offset_bounds_the_negative_part():
    found = region_contrast_loss(
        torch.ones(1, 2, 1, 1), torch.ones(1, 1, 1, 1), torch.ones(1, 1), made([[1, 1]], [[1, 1]])
    )
    assert 2.3 < float(found.negative.detach()) < -math.log(1 - math.exp(-0.1)) < 2.353


@pytest.mark.parametrize("case", ["no class", "dark maps", "no prototypes", "no images"])
def test_nothing_to_compare_gives_0_with_a_graph(case):
    features, maps, present, prototypes = scene()
    if case == "no class":
        present = torch.zeros_like(present)
    if case == "dark maps":
        maps = torch.zeros_like(maps)
    if case == "no prototypes":
        prototypes = Prototypes([torch.zeros(0, 5)] * 4, [torch.zeros(0, 5)] * 4, [torch.zeros(0).bool()] * 4)
    if case == "no images":
        features, maps, present = features[:0], maps[:0], present[:0]
    found = region_contrast_loss(features, maps, present, prototypes)
    (gradient,) = torch.autograd.grad(found.loss, features)
    assert float(found.loss.detach()) == int(found.pairs) == 0
    assert not gradient.any()


def test_half_precision_and_autocast(device):
    features, maps, present, prototypes = scene()
    expected = region_contrast_loss(features, maps, present, prototypes)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = region_contrast_loss(features.float(), maps.float(), present, prototypes)
    assert found.loss.dtype == torch.float32
    assert float(found.loss.detach()) == pytest.approx(float(expected.loss.detach()), rel=1e-5)
    found = region_contrast_loss(features.half(), maps.half(), present, prototypes)
    assert float(found.loss.detach()) == pytest.approx(float(expected.loss.detach()), rel=1e-2)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"temperature": 0}, r"temperature=0 and offset=0\.1; give one above 0"),
        ({"offset": -1}, "offset=-1; give one above 0 and one of at least 0"),
        ({"distance": "l1"}, r"distance='l1'; give \"rms\""),
        ({"reduction": "max"}, r"reduction='max'; give \"mean\" or \"sum\""),
        ({"theta": -0.1}, r"theta=-0\.1; the threshold"),
        ({"present": torch.ones(3, 2)}, r"class maps .* and labels \[3, 2\] do not fit"),
        ({"features": torch.zeros(3, 5, 2, 2)}, r"features \[3, 5, 2, 2\] and class maps \[3, 4, 3, 4\] do not fit"),
        ({"features": torch.zeros(3, 7, 3, 4)}, r"4 classes and 5 channels, but 4 class maps and 7 channels; collect"),
        ({"prototypes": made([[1, 1]], [[1, 1]])}, r"prototypes of 1 classes and 2 channels, but 4 class maps"),
    ],
)
def test_refused(change, sentence):
    given = dict(zip(("features", "class_maps", "present", "prototypes"), scene(), strict=True))
    with pytest.raises(InputError, match=sentence):
        region_contrast_loss(**{**given, **change})
