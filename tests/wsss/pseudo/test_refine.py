"""Scores and labels of one photograph against slow, explicit references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heads import tiny
from numpy.testing import assert_allclose, assert_array_equal

from camplug.errors import InputError
from camplug.wsss.affinity import SparseAffinity
from camplug.wsss.affinitynet import AffinityNet, AffinityNetHeadSettings
from camplug.wsss.crf import (
    CRFSettings,
    DenseCRF,
    PARSettings,
    make_unary_from_labels,
    pixel_adaptive_refinement,
)
from camplug.wsss.irn import IRN, IRNHeadSettings
from camplug.wsss.pseudo import AffinityNetWalk, ColourWalk, IRNWalk, PseudoLabels, Threshold, refine
from camplug.wsss.train import Backbone

SIZES = [(10, 13), (16, 8), (9, 1), (1, 9), (1, 1), (5, 4)]


RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def _numbers():
    """The same numbers for every test, whichever others run."""
    RNG.bit_generator.state = np.random.default_rng(5).bit_generator.state


def photo_of(h, w):
    return RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)


def maps_of(k, h, w):
    return RNG.random((k, h, w)).astype(np.float32)


class Drawn:
    """Boundaries by hand."""

    def __init__(self, boundary, device="cpu"):
        self.boundary = torch.from_numpy(boundary).to(device)

    def boundaries(self, photo):
        return self.boundary

    def displacements(self, photo):
        return None


class Known:
    """Affinities by hand."""

    def __init__(self, matrix, size):
        self.affinity = SparseAffinity(matrix, size)

    def affinities(self, photo):
        return self.affinity


class Untouched:
    def affinities(self, photo):
        raise AssertionError("nobody needs this network")

    boundaries = displacements = affinities


# ---- the references


def shrunk(plane, stride):
    """Bilinear with antialiasing: a triangle over the pixels around each position, rows first, then columns."""
    for axis in (0, 1):
        side = plane.shape[axis]
        out = -(-side // stride)
        scale = side / out
        weights = np.zeros((out, side))
        for i in range(out):
            centre = (i + 0.5) * scale
            weights[i] = [max(0.0, 1 - abs(x + 0.5 - centre) / scale) for x in range(side)]
            weights[i] /= weights[i].sum()
        plane = np.moveaxis(np.tensordot(weights, plane, (1, axis)), 0, axis)
    return plane


def stretched(plane, stride, size):
    """Bilinear, pixel by pixel, cut to size."""
    result = np.zeros(size)
    for place in np.ndindex(*size):
        at = [min(max((p + 0.5) / stride - 0.5, 0), side - 1) for p, side in zip(place, plane.shape, strict=True)]
        low = [int(a) for a in at]
        high = [min(a + 1, side - 1) for a, side in zip(low, plane.shape, strict=True)]
        (fy, fx), (y, x), (b, r) = [a - c for a, c in zip(at, low, strict=True)], low, high
        result[place] = (1 - fy) * ((1 - fx) * plane[y, x] + fx * plane[y, r]) + fy * (
            (1 - fx) * plane[b, x] + fx * plane[b, r]
        )
    return result


def by_boundary(boundary, radius=5):
    """The affinity of every pair, by the positions that its straight line touches."""
    h, w = boundary.shape
    matrix = np.eye(h * w)
    places = list(np.ndindex(h, w))
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            dy, dx = v - y, u - x
            if i != j and dy * dy + dx * dx < radius * radius:
                ys, xs = range(min(y, v), max(y, v) + 1), range(min(x, u), max(x, u) + 1)
                way = [(p, q) for p in ys for q in xs if (dy * (q - x) - dx * (p - y)) ** 2 < dy * dy + dx * dx]
                matrix[i, j] = 1 - max(boundary[at] for at in way)
    return matrix


def walked(planes, matrix, beta, steps):
    power = matrix.astype(np.float64) ** beta
    steps = np.linalg.matrix_power(power / power.sum(1, keepdims=True), steps)
    return np.stack([(steps @ plane.ravel()).reshape(plane.shape) for plane in planes])


def grid(h, w, stride):
    return -(-h // stride), -(-w // stride)


# ---- values


def test_threshold():
    maps = np.array([[[0.1, 0.3, 0.3]], [[0.2, 0.3, 0.9]]], np.float32)
    scores = Threshold(0.3)(photo_of(1, 3), maps)
    assert scores.dtype == np.float32
    assert_array_equal(scores, np.concatenate([np.full((1, 1, 3), 0.3, np.float32), maps]))
    # a map that is as strong as the background is background; of equal maps the first wins
    assert_array_equal(PseudoLabels(Threshold(0.3))(photo_of(1, 3), maps), [[0, 0, 2]])
    same = np.full((2, 1, 2), 0.5, np.float32)
    assert_array_equal(PseudoLabels(Threshold(0.0))(photo_of(1, 2), same), [[1, 1]])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{}, {"power": 1.5, "beta": 4, "steps": 7}, {"tolerance": None, "radius": 3}])
def test_irn_walk(size, options, device):
    h, w = size
    boundary = RNG.random(grid(h, w, 4)).astype(np.float32) ** 3
    maps = maps_of(2, h, w)
    walk = IRNWalk(Drawn(boundary, device), 0.2, **options)
    start = np.stack([shrunk(m, 4) for m in maps.astype(np.float64)]) ** options.get("power", 1.0) * (1 - boundary)
    matrix = by_boundary(boundary, options.get("radius", 5))
    small = walked(start, matrix, options.get("beta", 10), options.get("steps", 256))
    expected = np.stack([stretched(m, 4, size) for m in small])
    expected /= expected.max()
    made = walk.maps(photo_of(h, w), maps)
    assert made.dtype == np.float32
    assert_allclose(made, expected, atol=2e-4)
    assert made.max() == 1
    scores = walk(photo_of(h, w), maps)
    assert_array_equal(scores[0], np.full(size, 0.2, np.float32))
    assert_array_equal(scores[1:], made)
    labels = PseudoLabels(walk)(photo_of(h, w), maps)
    sure = np.abs(np.diff(np.sort(np.concatenate([np.full((1, *size), 0.2), expected]), 0)[-2:], axis=0))[0] > 1e-3
    assert sure.mean() > 0.9 or h * w < 20
    wanted = np.concatenate([np.full((1, *size), 0.2), expected]).argmax(0)
    assert_array_equal(labels[sure], wanted[sure])
    assert labels.dtype == np.uint8


@pytest.mark.parametrize("options", [{}, {"power": 1.5, "beta": 4, "steps": 7}])
def test_colour_walk(options):
    """Cells of 4x4 pixels have their mean colours; a is exp(-d^2 / (2 30^2)) up to a distance below 5 positions."""
    photo = photo_of(16, 24) // 4
    maps = maps_of(2, 16, 24)
    cells = photo.reshape(4, 4, 6, 4, 3).mean((1, 3)).round().reshape(24, 3)  # Pillow's box filter rounds
    places = np.array(list(np.ndindex(4, 6)))
    near = ((places[:, None] - places) ** 2).sum(2) < 25
    matrix = np.exp(((cells[:, None] - cells) ** 2).sum(2) / -1800) * near
    settings = {"beta": ColourWalk(0).beta, "steps": ColourWalk(0).steps, "power": 1.0, **options}
    start = np.stack([shrunk(m, 4) for m in maps.astype(np.float64)]) ** settings["power"]
    small = walked(start, matrix, settings["beta"], settings["steps"])
    expected = np.stack([stretched(m, 4, (16, 24)) for m in small])
    made = ColourWalk(0.2, **options).maps(photo, maps)
    assert_allclose(made, expected / expected.max(), atol=2e-3)  # a step of colour where the mean ends in .5
    scores = ColourWalk(0.2, **options)(photo, maps)
    assert_array_equal(scores, np.concatenate([np.full((1, 16, 24), 0.2, np.float32), made]))


def test_maps_do_not_cross_a_boundary():
    boundary = np.zeros((4, 6), np.float32)
    boundary[:, 3] = 1
    maps = np.zeros((1, 16, 24), np.float32)
    maps[:, :4, :4] = 1  # a corner of the left part
    made = IRNWalk(Drawn(boundary)).maps(photo_of(16, 24), maps)[0]
    assert made[:, :10].min() > 0.99
    assert made[:, 18:].max() == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{}, {"alpha": 4, "beta": 2, "steps": 9}, {"tolerance": None}])
def test_psa_walk(size, options):
    h, w = size
    gh, gw = grid(h, w, 8)
    matrix = RNG.random((gh * gw, gh * gw))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1)
    maps = maps_of(2, h, w)
    planes = np.concatenate([(1 - maps.max(0, keepdims=True)) ** options.get("alpha", 16), maps]).astype(np.float64)
    cells = np.zeros((3, gh, gw))
    for k, y, x in np.ndindex(3, gh, gw):
        cells[k, y, x] = planes[k, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].mean()
    small = walked(cells, matrix, options.get("beta", 8), options.get("steps", 256))
    expected = np.stack([stretched(m, 8, size) for m in small])
    walk = AffinityNetWalk(Known(matrix, (gh, gw)), **options)
    scores = walk(photo_of(h, w), maps)
    assert scores.dtype == np.float32
    assert_allclose(scores, expected, atol=1e-4)
    shares = walk.maps(photo_of(h, w), maps)
    assert_allclose(shares, expected[1:] / (expected[1:].max(0) + expected[0]), atol=1e-4)
    assert_array_equal(PseudoLabels(Threshold(0.5))(photo_of(h, w), shares), PseudoLabels(walk)(photo_of(h, w), maps))


def a_walk(kind, device):
    """The walk of an untrained network on a device, whose weights are always the same."""
    torch.manual_seed(0)
    if kind == "affinitynet":
        return AffinityNetWalk(
            AffinityNet(Backbone(tiny()), AffinityNetHeadSettings(width=56)).to(device).eval(), steps=2
        )
    return IRNWalk(IRN(Backbone(tiny()), IRNHeadSettings(width=16)).to(device).eval(), 0.3, steps=8)


@pytest.mark.parametrize("kind", ["irn", "affinitynet"])
@pytest.mark.parametrize("size", [(33, 50), (64, 40)])
def test_networks_of_a_device_give_the_same_labels(kind, size, device):
    photo, maps = photo_of(*size), 0.2 * maps_of(2, *size)
    maps[0, :, :12] += 0.8
    maps[1, 24:] += 0.5
    here, there = a_walk(kind, "cpu"), a_walk(kind, device)
    want, made = here(photo, maps), there(photo, maps)
    assert (made.dtype, made.flags.c_contiguous) == (np.float32, True)
    assert_allclose(made, want, atol=1e-3)
    assert_allclose(there.maps(photo, maps), here.maps(photo, maps), atol=1e-3)
    first, second = np.sort(want, 0)[:-3:-1]
    sure = first - second > 2e-3
    assert sure.mean() > 0.9
    labels = PseudoLabels(there)(photo, maps)
    assert len(np.unique(labels)) == 3
    assert_array_equal(labels[sure], want.argmax(0)[sure])
    if kind == "irn":
        one, other = (walk.find_instances(photo, maps) for walk in (here, there))
        assert [i.class_index for i in one] == [i.class_index for i in other]
        assert all((a.mask != b.mask).mean() < 0.01 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("crf", ["irn", "deeplab", CRFSettings((2, 4), (9, 20, 6), 3)])
@pytest.mark.parametrize("certainty", [0.7, 0.55])
def test_crf(crf, certainty):
    photo = np.zeros((12, 14, 3), np.uint8)
    photo[:, 7:] = 220
    maps = np.clip(maps_of(2, 12, 14) * 0.5, 0, 1)
    maps[0, :, :6] += 0.3
    maps[1, :, 8:] += 0.4
    hard = Threshold(0.45)(photo, maps).argmax(0)
    expected = DenseCRF(photo, crf).refine(make_unary_from_labels(hard, 3, certainty)).argmax(0)
    made = PseudoLabels(Threshold(0.45), crf, certainty)(photo, maps)
    assert_array_equal(made, expected)
    assert (made != hard).any()
    assert made.dtype == np.uint8


# ---- where there is nothing to do


@pytest.mark.parametrize("size", SIZES)
def test_without_maps_everything_is_background(size, monkeypatch):
    monkeypatch.setattr(refine, "DenseCRF", None)
    photo, none = photo_of(*size), np.zeros((0, *size), np.float32)
    for scores in (Threshold(0.3), IRNWalk(Untouched()), AffinityNetWalk(Untouched())):
        labels = PseudoLabels(scores, "irn")(photo, none)
        assert (labels.dtype, labels.shape, labels.any()) == (np.uint8, size, False)
        assert scores(photo, none).shape == (1, *size)
    for walk in (IRNWalk(Untouched()), AffinityNetWalk(Untouched())):
        assert walk.maps(photo, none).shape == (0, *size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crf", [None, "irn"])
def test_maps_of_zeros_are_background(size, crf, device):
    boundary = RNG.random(grid(*size, 4)).astype(np.float32)
    cells = grid(*size, 8)
    affinity = Known(np.eye(cells[0] * cells[1]), cells)
    zeros = np.zeros((2, *size), np.float32)
    irn = IRNWalk(Drawn(boundary, device))
    for scores in (Threshold(0.3), Threshold(0), irn, AffinityNetWalk(affinity)):
        assert not PseudoLabels(scores, crf)(photo_of(*size), zeros).any()
    assert not irn.maps(photo_of(*size), zeros).any()


@pytest.mark.parametrize("size", [(9, 1), (1, 9), (1, 1)])
def test_one_pixel_wide_photographs(size):
    boundary = np.zeros(grid(*size, 4), np.float32)
    ones = np.ones((1, *size), np.float32)
    assert (PseudoLabels(IRNWalk(Drawn(boundary)), "irn")(photo_of(*size), ones) == 1).all()


def test_a_photograph_that_is_all_boundary_stays_without_objects():
    ones = np.ones((1, 8, 8), np.float32)
    made = IRNWalk(Drawn(np.ones((2, 2), np.float32))).maps(photo_of(8, 8), ones)
    assert not made.any()


# ---- bad input


@pytest.mark.parametrize(
    "make,says",
    [
        (lambda: Threshold(1), "a threshold of 1 is not possible; give 0 or more, and less than 1."),
        (lambda: Threshold(float("nan")), "a threshold of nan"),
        (lambda: IRNWalk(Untouched(), -0.1), "a threshold of -0.1"),
        (lambda: IRNWalk(Untouched(), beta=0), "beta=0; give a number above 0"),
        (lambda: IRNWalk(Untouched(), power=0), "power=0; give a number above 0"),
        (lambda: IRNWalk(Untouched(), steps=-1), "steps=-1; give 0 to"),
        (lambda: IRNWalk(Untouched(), radius=1), "radius=1; give"),
        (lambda: IRNWalk(Untouched(), tolerance=1), "tolerance=1"),
        (lambda: AffinityNetWalk(Untouched(), 0), "alpha=0; give a number above 0"),
        (lambda: AffinityNetWalk(Untouched(), beta=float("inf")), "beta=inf"),
        (lambda: PseudoLabels(Threshold(0.3), "none"), "there is no CRF 'none'; give 'irn', 'affinitynet', 'deeplab'"),
        (lambda: PseudoLabels(Threshold(0.3), certainty=1), "certainty=1; give a probability between 0 and 1"),
    ],
)
def test_options_out_of_range(make, says):
    with pytest.raises(InputError) as error:
        make()
    assert says in str(error.value)


@pytest.mark.parametrize(
    "photo,maps,says",
    [
        (np.zeros((4, 5, 3), np.float32), np.zeros((1, 4, 5), np.float32), "float32 [4, 5, 3]; give RGB uint8 [H,W,3]"),
        (np.zeros((4, 5), np.uint8), np.zeros((1, 4, 5), np.float32), "give RGB uint8"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((1, 5, 4), np.float32), "[1, 5, 4]; give floats [K,4,5]"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((1, 4, 5), np.uint8), "uint8 [1, 4, 5]; give floats"),
        (np.zeros((4, 5, 3), np.uint8), np.full((1, 4, 5), np.nan, np.float32), "nan or infinity"),
        (np.zeros((1, 1, 3), np.uint8), np.zeros((255, 1, 1), np.float32), "K at most 254"),
    ],
)
def test_photographs_and_maps_that_do_not_fit(photo, maps, says):
    for scores in (PseudoLabels(Threshold(0.3)), IRNWalk(Untouched()), AffinityNetWalk(Untouched())):
        with pytest.raises(InputError) as error:
            scores(photo, maps)
        assert says in str(error.value)


def test_par_refines_scores_before_the_labels():
    """The background keeps its score, so labels are those of refined maps at the same threshold."""
    photo, maps = photo_of(12, 14), maps_of(2, 12, 14)
    refined = pixel_adaptive_refinement(photo, maps)
    wanted = np.concatenate([np.full((1, 12, 14), 0.45), refined])
    sure = np.diff(np.sort(wanted, 0)[-2:], axis=0)[0] > 1e-4
    assert sure.mean() > 0.9
    assert_array_equal(PseudoLabels(Threshold(0.45), "par")(photo, maps)[sure], wanted.argmax(0)[sure])
    few = PARSettings(dilations=(1,), iterations=1, scale=1)
    refined = pixel_adaptive_refinement(photo, maps, dilations=(1,), iterations=1, scale=1)
    wanted = np.concatenate([np.full((1, 12, 14), 0.45), refined])
    sure = np.diff(np.sort(wanted, 0)[-2:], axis=0)[0] > 1e-4
    assert_array_equal(PseudoLabels(Threshold(0.45), few)(photo, maps)[sure], wanted.argmax(0)[sure])
    assert not PseudoLabels(Threshold(0.45), "par")(photo, maps[:0]).any()
    with pytest.raises(InputError, match="there is no CRF 'pra'; give 'irn', 'affinitynet', 'deeplab', 'par', CRFSe"):
        PseudoLabels(Threshold(0.45), "pra")
