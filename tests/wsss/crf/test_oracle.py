"""The dense CRF against pydensecrf, the C++ that the published settings were chosen for, on photographs.

pip install pydensecrf2
CAMPLUG_VOC=VOCdevkit/VOC2012 pytest tests/wsss/crf/test_oracle.py      # photographs of VOC 2012, too
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camplug.wsss.crf import PRESETS, DenseCRF, make_unary_from_labels, make_unary_from_scores

densecrf = pytest.importorskip("pydensecrf.densecrf", reason="needs pydensecrf2")
skimage = pytest.importorskip("skimage.data", reason="needs scikit-image")

VOC = os.environ.get("CAMPLUG_VOC")
PHOTOS = ("astronaut", "chelsea", "coffee")


def oracle(photo, unary, settings):
    k, h, w = unary.shape
    crf = densecrf.DenseCRF2D(w, h, k)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(k, -1)))
    (gxy, smooth), (bxy, brgb, alike) = settings.gaussian, settings.bilateral
    crf.addPairwiseGaussian(sxy=gxy, compat=smooth)
    crf.addPairwiseBilateral(sxy=bxy, srgb=brgb, rgbim=np.ascontiguousarray(photo), compat=alike)
    return np.array(crf.inference(settings.iterations)).reshape(k, h, w)


def photo_of(name, size=(160, 120)):
    return np.array(Image.fromarray(getattr(skimage, name)()).resize(size))


def scores_of(k, size, seed):
    """Smooth scores that know nothing of the photograph, [K, H, W], 1 in total."""
    coarse = np.random.default_rng(seed).normal(size=(k, 6, 6)).astype(np.float32) * 2
    planes = np.exp([np.array(Image.fromarray(p).resize(size, Image.Resampling.BICUBIC)) for p in coarse])
    return planes / planes.sum(0)


def assert_alike(photo, unary, preset, backend="numpy"):
    """At most .1 % of the labels differ; the marginals by 1e-5 in the mean."""
    q, want = DenseCRF(photo, preset, backend=backend).refine(unary), oracle(photo, unary, PRESETS[preset])
    assert (q.argmax(0) != want.argmax(0)).mean() <= 0.001
    assert np.abs(q - want).mean() <= 1e-5


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("name", PHOTOS)
def test_labels_on_photographs(name, preset):
    photo = photo_of(name)
    labels = scores_of(3, (160, 120), seed=len(name)).argmax(0)
    labels[:20, :20] = 255
    assert_alike(photo, make_unary_from_labels(labels, 3), preset)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("k", [2, 4, 21])
def test_scores_on_a_photograph(k, preset):
    assert_alike(photo_of("chelsea"), make_unary_from_scores(scores_of(k, (160, 120), seed=k)), preset)


def test_torch_on_a_photograph():
    assert_alike(photo_of("coffee"), make_unary_from_scores(scores_of(3, (160, 120), seed=0)), "irn", backend="torch")


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_region_of_noise(preset):
    """Pixels that hardly meet in the lattice: the corners that exist decide, and they are the same."""
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    assert_alike(photo, make_unary_from_scores(scores_of(3, (80, 60), seed=1)), preset)


@pytest.mark.skipif(not VOC, reason="set CAMPLUG_VOC to VOCdevkit/VOC2012")
@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("place", [0, 0.25, 0.5, 0.75])
def test_coarse_labels_on_voc(place, preset):
    masks = sorted((Path(VOC) / "SegmentationClass").glob("*.png"))
    mask = masks[int(place * len(masks))]
    photo = np.array(Image.open(Path(VOC) / f"JPEGImages/{mask.stem}.jpg").convert("RGB"))
    with Image.open(mask) as image:
        coarse = image.resize((image.width // 16, image.height // 16), Image.Resampling.NEAREST)
        truth = np.array(coarse.resize(image.size, Image.Resampling.NEAREST))
    present = np.union1d(0, truth[truth != 255])
    labels = np.where(truth == 255, 255, np.searchsorted(present, truth))
    assert_alike(photo, make_unary_from_labels(labels, max(2, len(present))), preset)
