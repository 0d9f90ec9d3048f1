"""The dense CRF against the exact sum over all pairs of pixels, by hand and slowly; and bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from crf_scenes import blocks, crf_of, exact_matrices, iterated, lattice_matrices, scene, softmax
from PIL import Image

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
@pytest.mark.parametrize("k", [2, 3, 4, 5, 9, 14])
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
        (lambda: DenseCRF(PHOTO, backend="numpy", device="meta"), "device='meta' is for backend='torch'; numpy runs"),
        (
            lambda: DenseCRF(PHOTO, backend="torch", device="toaster"),
            "the device 'toaster' is not available here; there is: cpu",
        ),
        (lambda: DenseCRF(PHOTO, backend="torch", device=1.5), "the device '1.5' is not available here"),
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
