"""The dense CRF against the exact sum over all pairs of pixels, by hand and slowly; the cache; both backends."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import simulated
import torch
from operations import Operations
from PIL import Image
from scipy.ndimage import gaussian_filter

import camplug.wsss.crf.kernels as kernels
from camplug.errors import InputError
from camplug.wsss.crf import (
    PRESETS,
    CRFSettings,
    DenseCRF,
    Lattice,
    make_unary_from_labels,
    make_unary_from_scores,
    refine_labels,
)

ALL = sorted(PRESETS)


def crf_of(photo, settings="irn", *, backend, device):
    return DenseCRF(photo, settings, backend=backend, device=device if backend == "torch" else None)


def softmax(logits):
    e = np.exp(logits - logits.max(0))
    return e / e.sum(0)


def update(q, unary, matrices):
    """One exact update: Q, U [K, P]; matrices [P, P], normalised and weighted."""
    return softmax(-unary + sum(q @ m.T for m in matrices))


def iterated(unary, matrices, iterations):
    flat = unary.reshape(len(unary), -1).astype(np.float64)
    q = softmax(-flat)
    for _ in range(iterations):
        q = update(q, flat, matrices)
    return q.reshape(unary.shape)


def features(photo, settings):
    h, w = photo.shape[:2]
    y, x = np.mgrid[:h, :w].reshape(2, -1)
    (gxy, _), (bxy, brgb, _) = settings.gaussian, settings.bilateral
    return [np.stack([x / gxy, y / gxy], 1), np.column_stack([x / bxy, y / bxy, photo.reshape(-1, 3) / brgb])]


def normalised(matrix):
    n = 1 / np.sqrt(matrix.sum(1))
    return n[:, None] * matrix * n


def exact_matrices(photo, settings):
    weights = settings.gaussian[-1], settings.bilateral[-1]
    return [
        w * normalised(np.exp(-0.5 * ((f[:, None] - f[None]) ** 2).sum(-1)))
        for w, f in zip(weights, features(photo, settings), strict=True)
    ]


def lattice_matrices(photo, settings):
    """The same with the lattice's kernel, written out."""
    weights = settings.gaussian[-1], settings.bilateral[-1]
    eye = np.eye(photo.shape[0] * photo.shape[1], dtype=np.float32)
    return [
        w * normalised(Lattice(f).filter(eye).astype(np.float64))
        for w, f in zip(weights, features(photo, settings), strict=True)
    ]


def scene(h=12, w=16, seed=0, noise=9):
    """A disc before a ground and noise of so many levels, uint8 [h, w, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    inside = (y - h / 2) ** 2 + (x - w / 3) ** 2 < (min(h, w) / 3) ** 2
    base = np.where(inside[..., None], [200, 120, 60], [60, 90, 140])
    return np.clip(base + rng.normal(scale=noise, size=(h, w, 3)), 0, 255).astype(np.uint8)


def blocks(k, h=12, w=16, seed=0):
    """Labels in blocks of about 4x4 pixels."""
    coarse = np.random.default_rng(seed).integers(0, k, (-(-h // 4), -(-w // 4)))
    return coarse.repeat(4, 0).repeat(4, 1)[:h, :w]


# ---- numbers


def test_an_update_by_hand():
    """Two pixels of one colour, one pixel apart; Gaussian with sxy 1 and compat 2; U = -log of (3/4, 1/4), (1/2, 1/2).

    K = [[1, e], [e, 1]], e = exp(-1/2) = .606531; N K N = K / (1 + e).
    Class 0: 2 (.75 + .606531 * .5) / 1.606531 = 1.311230 and 2 (.606531 * .75 + .5) / 1.606531 = 1.188770; all four add
    up to 2 * 2, so class 1 has .688770 and .811230.
    Q of class 0: 1 / (1 + (1/3) exp(.688770 - 1.311230)) = .848267 and 1 / (1 + exp(.811230 - 1.188770)) = .593280.
    """
    unary = -np.log([[[0.75, 0.5]], [[0.25, 0.5]]])
    photo = np.zeros((1, 2, 3), np.uint8)
    settings = CRFSettings((1, 2), (1, 1, 0), iterations=1)
    by_hand = np.array([0.848267, 0.593280])
    exact = iterated(unary, exact_matrices(photo, settings)[:1], 1)
    np.testing.assert_allclose(exact[0, 0], by_hand, atol=2e-6)
    np.testing.assert_allclose(DenseCRF(photo, settings).refine(unary)[0, 0], by_hand, atol=0.02)


def test_equal_pixels_by_hand():
    """All pixels alike in a kernel far wider than the image: every answer is the mean of Q, and the lattice is exact.

    The mean of (.9, .5, .7) is .7; with compat 3 Q of class 0 is 1 / (1 + (.1 / .9) exp(3 (.3 - .7))), and so on.
    """
    p = np.array([0.9, 0.5, 0.7])
    unary = -np.log(np.stack([p, 1 - p]))[:, None]
    crf = DenseCRF(np.full((1, 3, 3), 77, np.uint8), CRFSettings((1, 0), (1e6, 5, 3), iterations=1))
    np.testing.assert_allclose(crf.refine(unary)[0, 0], 1 / (1 + (1 - p) / p * np.exp(-1.2)), rtol=1e-5)


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("k", [2, 3, 4, 5, 9])
def test_equals_the_update_with_the_matrix_of_the_lattice(preset, k):
    """All but the lattice itself: normalisation, weights, iterations, the last plane, rows that are filled up."""
    photo, labels = scene(), blocks(k)
    unary = make_unary_from_labels(labels, k)
    want = iterated(unary, lattice_matrices(photo, PRESETS[preset]), 10)
    q = DenseCRF(photo, preset).refine(unary)
    assert q.dtype == np.float32
    np.testing.assert_allclose(q, want, atol=2e-4)
    np.testing.assert_allclose(q.sum(0), 1, rtol=1e-5)


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("noise,error,differing", [(2, 0.01, 0.02), (9, 0.04, 0.08)])
def test_close_to_the_exact_sum(preset, k, noise, error, differing):
    """What the lattice costs: mean |dQ|, and labels that differ.

    Labels at random on so few pixels are the hard case. Where noise is wider than srgb, pixels of one region hardly
    meet in the lattice, and more is lost; pydensecrf's lattice errs by as much (test_oracle.py).
    """
    settings, errors, others = PRESETS[preset], [], []
    for seed in range(4):
        photo = scene(seed=seed, noise=noise)
        unary = make_unary_from_labels(blocks(k, seed=seed), k)
        want = iterated(unary, exact_matrices(photo, settings), settings.iterations)
        q = DenseCRF(photo, preset).refine(unary)
        errors.append(np.abs(q - want).mean())
        others.append((q.argmax(0) != want.argmax(0)).mean())
    assert np.mean(errors) <= error
    assert np.mean(others) <= differing


def test_iterations():
    photo, unary = scene(), make_unary_from_labels(blocks(3), 3)
    matrices = lattice_matrices(photo, PRESETS["irn"])
    for iterations in (0, 1, 2):
        q = DenseCRF(photo, replace(PRESETS["irn"], iterations=iterations)).refine(unary)
        np.testing.assert_allclose(q, iterated(unary, matrices, iterations), atol=1e-5)


def test_kernels_without_weight_are_left_out():
    photo, unary = scene(), make_unary_from_labels(blocks(2), 2)
    both = lattice_matrices(photo, PRESETS["irn"])
    smooth = DenseCRF(photo, CRFSettings((3, 3), (50, 5, 0))).refine(unary)
    np.testing.assert_allclose(smooth, iterated(unary, both[:1], 10), atol=1e-4)
    alike = DenseCRF(photo, CRFSettings((3, 0), (50, 5, 10))).refine(unary)
    np.testing.assert_allclose(alike, iterated(unary, both[1:], 10), atol=1e-4)
    for backend in ("numpy", "torch"):
        alone = DenseCRF(photo, CRFSettings((3, 0), (50, 5, 0)), backend=backend).refine(unary)
        np.testing.assert_allclose(alone, softmax(-unary), rtol=1e-5)


def test_presets():
    assert PRESETS["irn"] == CRFSettings((3, 3), (50, 5, 10), 10)
    assert PRESETS["affinitynet"] == CRFSettings((3, 3), (80, 13, 10), 10)
    assert PRESETS["deeplab"] == CRFSettings((1, 3), (67, 3, 4), 10)


# ---- properties


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_order_of_classes(k, backend, device):
    crf, unary = crf_of(scene(), backend=backend, device=device), make_unary_from_labels(blocks(k), k)
    order = np.random.default_rng(k).permutation(k)
    np.testing.assert_allclose(crf.refine(unary[order]), crf.refine(unary)[order], atol=1e-4)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_only_differences_of_energies_count(backend, device):
    crf, unary = crf_of(scene(), backend=backend, device=device), make_unary_from_labels(blocks(3), 3)
    offset = np.random.default_rng(0).normal(scale=20, size=unary.shape[1:]).astype(np.float32)
    np.testing.assert_allclose(crf.refine(unary + offset), crf.refine(unary), atol=1e-3)
    np.testing.assert_allclose(crf.refine(unary + 1e4), crf.refine(unary), atol=2e-2)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("k", [2, 5])
def test_huge_energies_and_weights_stay_finite(k, backend, device):
    photo, unary, where = scene(), make_unary_from_labels(blocks(k), k), {"backend": backend, "device": device}
    sure = crf_of(photo, **where).refine(unary * 1e30)
    assert np.array_equal(sure.argmax(0), blocks(k))
    heavy = crf_of(photo, CRFSettings((3, 1000), (50, 5, 5000)), **where).refine(unary)
    for q in (sure, heavy):
        np.testing.assert_allclose(q.sum(0), 1, rtol=1e-5)


def test_a_wrong_label_is_mended():
    photo = np.zeros((10, 10, 3), np.uint8)
    photo[:, 5:] = 180
    truth = np.zeros((10, 10), int)
    truth[:, 5:] = 1
    labels = truth.copy()
    labels[4, 3:6], labels[7, 7] = [1, 1, 255], 0
    assert np.array_equal(refine_labels(photo, labels, 2), truth)
    crf = DenseCRF(Image.fromarray(photo), "affinitynet")
    assert np.array_equal(refine_labels(crf, labels, 2, certainty=0.6), truth)
    assert np.array_equal(crf.refine(make_unary_from_scores(np.stack([1.0 - truth, truth]))).argmax(0), truth)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2)])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_tiny_images(size, k, backend, device):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    unary = make_unary_from_labels(np.arange(size[0] * size[1]).reshape(size) % k, k)
    q = crf_of(photo, backend=backend, device=device).refine(unary)
    assert q.shape == (k, *size)
    want = iterated(unary, lattice_matrices(photo, PRESETS["irn"]), 10)
    np.testing.assert_allclose(q, want, atol=1e-4)


def test_one_class_takes_no_iteration(monkeypatch):
    crf = DenseCRF(scene())
    monkeypatch.setattr(Lattice, "filter", None)
    assert np.array_equal(crf.refine(np.full((1, 12, 16), 3.0)), np.ones((1, 12, 16)))


def test_input_stays_as_it_was():
    photo, unary = scene(), make_unary_from_labels(blocks(3), 3)
    before = photo.copy(), unary.copy()
    crf = DenseCRF(photo)
    first = crf.refine(unary)
    assert np.array_equal(photo, before[0])
    assert np.array_equal(unary, before[1])
    assert np.array_equal(crf.refine(unary), first)
    for other in (np.asfortranarray(unary), unary.astype(np.float64), unary.tolist()):
        assert np.array_equal(crf.refine(other), first)
    assert np.array_equal(DenseCRF(np.asfortranarray(photo)).refine(unary), first)
    assert np.array_equal(DenseCRF(Image.fromarray(photo)).refine(unary), first)


# ---- torch


def photograph(h=150, w=200, seed=0):
    """Objects with sharp edges before a ground, both with fine and coarse texture, and a camera's noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    picture = np.full((h, w, 3), 110.0) + 40 * gaussian_filter(rng.normal(size=(h, w, 1)), (20, 20, 0)) * 20
    for _ in range(6):
        cy, cx, ry, rx = rng.random(4) * (h, w, h / 3, w / 3) + (0, 0, 8, 8)
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        picture[inside] = rng.integers(20, 235, 3) + 12 * gaussian_filter(rng.normal(size=(h, w)), 2)[inside, None]
    return np.clip(picture + rng.normal(scale=3, size=(h, w, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("k", [2, 4, 7])
def test_torch_equals_numpy(preset, k, device):
    photo, unary = scene(30, 40), make_unary_from_labels(blocks(k, 30, 40), k)
    want = DenseCRF(photo, preset).refine(unary)
    q = DenseCRF(photo, preset, backend="torch", device=device).refine(unary)
    assert q.dtype == np.float32
    np.testing.assert_allclose(q, want, atol=2e-3)
    assert np.abs(q - want).mean() < 1e-5
    assert np.array_equal(q.argmax(0), want.argmax(0))


@pytest.mark.parametrize("k", [3, 21])
def test_labels_of_a_photograph_equal_those_of_numpy(k, device):
    """But for ties within float32."""
    photo = photograph()
    coarse = np.random.default_rng(k).normal(size=(k, *photo.shape[:2]))
    labels = gaussian_filter(coarse, (0, 9, 9)).argmax(0)
    unary = make_unary_from_labels(labels, k)
    want = DenseCRF(photo).refine(unary)
    q = DenseCRF(photo, backend="torch", device=device).refine(unary)
    assert len(np.unique(want.argmax(0))) == k
    assert 0.05 < (want.argmax(0) != labels).mean() < 0.9  # there was something to do
    differing = q.argmax(0) != want.argmax(0)
    assert differing.mean() < 0.001
    first, second = np.sort(want[:, differing], 0)[:-3:-1]
    assert (first - second < 1e-3).all()
    np.testing.assert_allclose(q, want, atol=5e-3)


def test_a_photograph_crosses_over_once(device):
    """The unary goes to the device and the marginals come back; no iteration waits for it."""
    crf, unary = DenseCRF(scene(), backend="torch", device=device), make_unary_from_labels(blocks(3), 3)
    with simulated.count_waits() as waits:
        crf.refine(unary)
    assert waits.total() == (device.type == simulated.NAME)


def test_operations_of_an_iteration(device):
    """Two lattices with 3 and 6 directions of 4 operations each, splat, slice and sum; then softmax."""
    unary, counted = make_unary_from_labels(blocks(3), 3), []
    for iterations in (1, 2):
        crf = DenseCRF(scene(), replace(PRESETS["irn"], iterations=iterations), backend="torch", device=device)
        with Operations() as operations:
            crf.refine(unary)
        counted.append(operations.total)
    assert counted[1] - counted[0] <= 9 * 4 + 2 * 4 + 1


# ---- what is kept


@pytest.fixture
def built(monkeypatch):
    """The dimensions of the lattices that are built, in order; nothing is kept from before."""
    dimensions = []

    class Counted(Lattice):
        def __init__(self, features):
            dimensions.append(features.shape[1])
            super().__init__(features)

    monkeypatch.setattr(kernels, "Lattice", Counted)
    kernels.clear_kernel_cache()
    yield dimensions
    kernels.clear_kernel_cache()


def test_lattices_are_built_once(built):
    crf = DenseCRF(scene())
    for k in (2, 3):
        crf.refine(make_unary_from_labels(blocks(k), k))
    assert built == [2, 5]
    DenseCRF(scene(seed=1))
    assert built == [2, 5, 5], "the Gaussian of this size is there"
    DenseCRF(scene(), "affinitynet")
    assert built == [2, 5, 5, 5], "PSA's Gaussian is IRN's"
    DenseCRF(scene(), "deeplab")
    DenseCRF(scene(13))
    assert built[4:] == [2, 5, 2, 5]


def test_few_sizes_are_kept(built, monkeypatch):
    monkeypatch.setattr(kernels, "CACHED_PIXELS", 40)
    for width in (3, 4, 5, 4, 6):
        kernels.make_gaussian_kernel(3, width, 3)
    assert list(kernels._cache) == [(3, 4, 3.0), (3, 6, 3.0)], "3 x 5 is the one not used for longest"
    kernels.make_gaussian_kernel(20, 20, 3)
    assert not kernels._cache, "too large to keep"


def test_threads_share_what_is_kept(built):
    sizes = [(12, 16), (9, 20), (30, 7)]
    unaries = {s: make_unary_from_labels(blocks(3, *s), 3) for s in sizes}
    want = {s: DenseCRF(scene(*s)).refine(unaries[s]) for s in sizes}
    shared = {s: DenseCRF(scene(*s)) for s in sizes}
    kernels.clear_kernel_cache()
    wrong, gate = [], threading.Barrier(6)

    def work(start):
        try:
            gate.wait()
            for turn in range(6):
                s = sizes[(start + turn) % 3]
                for crf in (DenseCRF(scene(*s)), shared[s]):
                    if not np.array_equal(crf.refine(unaries[s]), want[s]):
                        wrong.append(s)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert set(kernels._cache) == {(*s, 3.0) for s in sizes}


# ---- bad input

PHOTO, UNARY = np.zeros((4, 6, 3), np.uint8), np.zeros((2, 4, 6), np.float32)


def with_value(value):
    unary = UNARY.astype(np.float64)
    unary[1, 2, 3] = value
    return unary


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: DenseCRF(PHOTO / 255), r"the photo is float64 \[4, 6, 3\]; give the raw RGB photo.*wrap around"),
        (lambda: DenseCRF(PHOTO.astype(np.int64)), r"the photo is int64 \[4, 6, 3\]; give the raw RGB"),
        (lambda: DenseCRF(PHOTO[..., 0]), r"the photo is uint8 \[4, 6\]; give"),
        (lambda: DenseCRF(PHOTO.transpose(2, 0, 1)), r"the photo is uint8 \[3, 4, 6\]; give"),
        (lambda: DenseCRF(np.zeros((4, 6, 4), np.uint8)), r"the photo is uint8 \[4, 6, 4\]; give"),
        (lambda: DenseCRF(PHOTO[:0]), r"the photo is uint8 \[0, 6, 3\]; give"),
        (lambda: DenseCRF(Image.new("L", (6, 4))), r"mode L; give photo.convert\('RGB'\)"),
        (lambda: DenseCRF(Image.new("RGBA", (6, 4))), "mode RGBA; give"),
        (lambda: DenseCRF("cat.jpg"), "the photo is of type str; give a PIL image or a uint8 array"),
        (lambda: DenseCRF(torch.zeros(4, 6, 3)), "the photo is of type Tensor; give a PIL image"),
        (lambda: DenseCRF(PHOTO, "voc"), "there is no CRF 'voc'; give 'irn', 'affinitynet', 'deeplab', or CRFSettings"),
        (lambda: DenseCRF(PHOTO, None), "there is no CRF None; give"),
        (lambda: DenseCRF(PHOTO, backend="jax"), "backend='jax': give 'numpy' or 'torch'"),
        (lambda: DenseCRF(PHOTO, device="cpu"), "device='cpu' is for backend='torch'; numpy runs on the CPU"),
        (lambda: DenseCRF(PHOTO, backend="torch", device="toaster"), "device='toaster' cannot be used here"),
        (lambda: DenseCRF(PHOTO, backend="torch", device=1.5), "device='1.5' cannot be used here"),
        (lambda: DenseCRF(PHOTO).refine(UNARY[0]), r"the unary is float32 \[4, 6\]; give floats \[K, 4, 6\]"),
        (lambda: DenseCRF(PHOTO).refine(UNARY[:0]), r"the unary is float32 \[0, 4, 6\]"),
        (lambda: DenseCRF(PHOTO).refine(UNARY.transpose(0, 2, 1)), r"the unary is float32 \[2, 6, 4\]"),
        (lambda: DenseCRF(PHOTO).refine(UNARY > 0), r"the unary is bool \[2, 4, 6\]"),
        (lambda: DenseCRF(PHOTO).refine(with_value(np.nan)), "the unary holds nan or infinite values; clip"),
        (lambda: DenseCRF(PHOTO).refine(with_value(np.inf)), "the unary holds nan or infinite values"),
        (lambda: DenseCRF(PHOTO).refine(with_value(1e300)), "the unary holds nan or infinite values"),
        (lambda: refine_labels(PHOTO, np.zeros((4, 5), int), 2), r"the unary is float32 \[2, 4, 5\]"),
        (lambda: refine_labels(PHOTO, np.full((4, 6), 2), 2), "holds the label 2"),
        (lambda: CRFSettings((3, -1), (50, 5, 10)), r"gaussian=\(3, -1\): give \(sxy, compat\)"),
        (lambda: CRFSettings((0, 3), (50, 5, 10)), r"gaussian=\(0, 3\): .* standard deviations of 0.001 or more"),
        (lambda: CRFSettings((3, 3, 3), (50, 5, 10)), r"gaussian=\(3, 3, 3\)"),
        (lambda: CRFSettings(3, (50, 5, 10)), "gaussian=3: "),
        (lambda: CRFSettings((3, 3), ("wide", 5, 10)), "bilateral=.*: give .sxy, srgb, compat."),
        (lambda: CRFSettings((3, 3), (50, np.nan, 10)), "bilateral=.*nan"),
        (lambda: CRFSettings((3, 3), (50, 5)), r"bilateral=\(50, 5\)"),
        (lambda: CRFSettings((3, 3), (50, 5, 10), -1), "iterations=-1: give 0 or more"),
        (lambda: CRFSettings((3, 3), (50, 5, 10), 2.5), "iterations=2.5: give a whole number"),
        (lambda: DenseCRF(PHOTO + scene(4, 6), CRFSettings((3, 3), (50, 0.001, 10))), "larger standard deviations"),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
