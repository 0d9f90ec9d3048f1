"""Path affinity: golden numbers, brute force, and IRN's gather form, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from operations import Operations

from camplug.errors import InputError
from camplug.wsss.affinity import make_half_disc
from camplug.wsss.irn.paths import path_affinity


def brute_force(boundary, radius):
    """One minus the strongest boundary among all positions within distance 1 of the segment, in loops."""
    n, h, w = boundary.shape
    out = torch.zeros(n, len(make_half_disc(radius)), h, w, dtype=boundary.dtype)
    for p, (dy, dx) in enumerate(make_half_disc(radius)):
        for y in range(h):
            for x in range(w):
                if not (0 <= y + dy < h and 0 <= x + dx < w):
                    continue
                length = math.hypot(dy, dx)
                for i in range(n):
                    strongest = 0.0
                    for a in range(min(y, y + dy), max(y, y + dy) + 1):
                        for b in range(min(x, x + dx), max(x, x + dx) + 1):
                            if abs(dy * (b - x) - dx * (a - y)) / length < 1 - 1e-12:
                                strongest = max(strongest, float(boundary[i, a, b]))
                    out[i, p, y, x] = 1 - strongest
    return out


def gathered(boundary, radius):
    """IRN's form: a table of the indices on every path, a gather, and a maximum over the path."""
    n, h, w = boundary.shape
    flat = boundary.flatten(1)
    out = torch.zeros(n, len(make_half_disc(radius)), h, w, dtype=boundary.dtype)
    planes = []
    for p, (dy, dx) in enumerate(make_half_disc(radius)):
        points = [
            (a, b)
            for a in range(min(0, dy), max(0, dy) + 1)
            for b in range(min(0, dx), max(0, dx) + 1)
            if (dy * b - dx * a) ** 2 < dy * dy + dx * dx
        ]
        points.sort(key=lambda at: -abs(at[0]) - abs(at[1]))
        sources = [(y, x) for y in range(h) for x in range(w) if 0 <= y + dy < h and 0 <= x + dx < w]
        if not sources:
            planes.append(out[:, p])
            continue
        table = torch.tensor([[(y + a) * w + x + b for a, b in points] for y, x in sources])
        values = 1 - flat[:, table].max(2).values
        at = torch.tensor([y * w + x for y, x in sources])
        planes.append(torch.zeros(n, h * w, dtype=boundary.dtype).index_copy(1, at, values).view(n, h, w))
    return torch.stack(planes, 1)


def test_golden_numbers(device):
    boundary = torch.tensor([[[0.1, 0.9, 0.2, 0.3]]]).to(device)
    found = path_affinity(boundary, 4)[0, :3, 0].cpu()  # one, two and three steps to the right
    expected = [[0.1, 0.1, 0.7, 0.0], [0.1, 0.1, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize(("size", "radius"), [((9, 11), 5), ((3, 14), 5), ((6, 4), 7), ((1, 1), 5), ((1, 6), 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_equals_brute_force(size, radius, dtype, device):
    boundary = torch.rand(2, *size, dtype=torch.float64).to(dtype)
    affinity = path_affinity(boundary.to(device), radius)
    assert (affinity.device.type, affinity.dtype) == (device.type, dtype)
    torch.testing.assert_close(affinity.cpu(), brute_force(boundary, radius))


@pytest.mark.parametrize("radius", [2, 5, 10])
@pytest.mark.parametrize("size", [(14, 13), (3, 15), (1, 6), (4, 2)])
def test_value_and_gradient_equal_the_gather_form(radius, size, device):
    """Whatever gradient there is where a pair leaves the grid."""
    boundary = torch.rand(2, *size, dtype=torch.float64)
    weights = torch.randn(2, len(make_half_disc(radius)), *size, dtype=torch.float64)
    results = []
    for form, where in ((path_affinity, device), (gathered, torch.device("cpu"))):
        leaf = boundary.to(where).requires_grad_()
        affinity = form(leaf, radius)
        (affinity * weights.to(where)).sum().backward()
        results.append((affinity.detach().cpu(), leaf.grad.cpu()))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-6, rtol=0)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-6, rtol=0)


def test_gradcheck():
    boundary = torch.rand(1, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b: path_affinity(b, 4), boundary)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_of_equal_boundaries_the_one_nearest_to_the_destination_learns(value, device):
    leaf = torch.full((1, 1, 3), value).to(device).requires_grad_()
    path_affinity(leaf, 3)[0, 1, 0, 0].backward()  # two steps to the right
    assert leaf.grad.tolist() == [[[0.0, 0.0, -1.0]]]


def test_inference_comes_before_training(device):
    """Index tensors kept per device serve both."""
    boundary = torch.rand(1, 6, 6).to(device)
    with torch.inference_mode():
        want = path_affinity(boundary, 6)
    leaf = boundary.clone().requires_grad_()
    affinity = path_affinity(leaf, 6)
    affinity.sum().backward()
    assert torch.equal(affinity.detach(), want.clone())
    assert leaf.grad.isfinite().all()


def test_operations_are_made_for_lengths_of_paths_not_for_paths(device):
    """152 offsets whose paths have 2134 positions, of 20 lengths that add up to 235."""
    boundary = torch.rand(1, 12, 12).to(device)
    with Operations() as operations, torch.no_grad():
        path_affinity(boundary, 10)
    assert operations.total <= 2 * 235 + 10 * 20
    leaf = boundary.requires_grad_()
    with Operations() as operations:
        affinity = path_affinity(leaf, 10)
    assert operations.total <= 4 * 235 + 10 * 20
    with Operations() as operations:
        affinity.backward(torch.ones_like(affinity))
    assert operations.total <= 20 * 20


def test_a_wall_separates():
    boundary = torch.zeros(1, 8, 8)
    boundary[:, :, 4] = 1
    affinity = path_affinity(boundary, 5)[0]
    for p, (dy, dx) in enumerate(make_half_disc(5)):
        for y in range(8 - dy):
            for x in range(max(0, -dx), min(8, 8 - dx)):
                crosses = min(x, x + dx) <= 4 <= max(x, x + dx)
                # a steep path may touch the wall's column from beside it
                touches = crosses or (dy > abs(dx) > 0 and min(abs(x - 4), abs(x + dx - 4)) <= 1)
                assert affinity[p, y, x] == (0 if crosses else 1) or touches


def test_without_gradient_nothing_is_kept():
    affinity = path_affinity(torch.rand(1, 6, 6), 4)
    assert affinity.grad_fn is None


@pytest.mark.parametrize("bad", [torch.rand(3, 3), torch.zeros(1, 3, 3, dtype=torch.int64)])
def test_refused(bad):
    with pytest.raises(InputError, match=r"planes \[N,h,w\]; got"):
        path_affinity(bad, 3)


@pytest.mark.parametrize("radius", [1, 0, 2.5, "5"])
def test_radius_refused(radius):
    with pytest.raises(InputError, match="at least 2"):
        path_affinity(torch.rand(1, 3, 3), radius)
