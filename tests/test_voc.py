"""On real photographs: Fully-CAM finds more than CAM, competing classes share it better, and a CRF finds the edges.

Needs VOC 2012 (`VOCdevkit/VOC2012`), of which the images listed in `voc12_animals_val.txt` are read, a part of its
official val split that shows animals, and a classifier: timm's tf_efficientnet_lite0 with 20 sigmoid outputs in VOC's
order, the demo's ImageNet weights fine-tuned on image labels alone (binary cross-entropy, 224-pixel crops, 6 epochs):

    CAMPLUG_VOC=VOCdevkit/VOC2012 CAMPLUG_VOC_WEIGHTS=voc_animals_lite0.pt pytest tests/test_voc.py -s
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import camplug
from camplug.wsss.crf import refine_labels
from camplug.wsss.irn import label_with_background

DATA, WEIGHTS = os.environ.get("CAMPLUG_VOC"), os.environ.get("CAMPLUG_VOC_WEIGHTS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA and WEIGHTS), reason="set CAMPLUG_VOC and CAMPLUG_VOC_WEIGHTS to real data"),
]
NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
).split()
SCORED = [0] + [
    NAMES.index(n) + 1 for n in ("cat", "cow", "dog", "horse", "person", "sheep")
]  # the others are too rare
THRESHOLDS = np.arange(0.05, 0.86, 0.05)


def images():
    root = Path(DATA)
    for name in Path(__file__).with_name("voc12_animals_val.txt").read_text(encoding="utf-8").split():
        photo = Image.open(root / f"JPEGImages/{name}.jpg").convert("RGB")
        mask = np.array(Image.open(root / f"SegmentationClass/{name}.png"))
        objects = ET.parse(root / f"Annotations/{name}.xml").findall("object")
        yield photo, mask, sorted({NAMES.index(o.findtext("name")) for o in objects})


def maps_of(explainer, photo, classes, size):
    scale = 320 / max(photo.size)
    small = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
    x = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1
    return explainer.maps(x[None], [classes], size=size)[0].numpy()


def confused(truth, label):
    known = truth != 255
    return np.bincount(truth[known].astype(int) * 21 + label[known], minlength=441).reshape(21, 21)


def mious(confusion):
    right = np.diagonal(confusion, axis1=1, axis2=2)
    iou = right / (confusion.sum(1) + confusion.sum(2) - right).clip(1)
    return 100 * iou[:, SCORED].mean(1)


def best_miou(explainer):
    confusion = np.zeros((len(THRESHOLDS), 21, 21), np.int64)
    for photo, truth, classes in images():
        maps = maps_of(explainer, photo, classes, truth.shape)
        top, best = maps.max(0), np.array(classes)[maps.argmax(0)] + 1
        for t, threshold in enumerate(THRESHOLDS):
            confusion[t] += confused(truth, np.where(top > threshold, best, 0))
    scores = mious(confusion)
    return scores.max(), THRESHOLDS[scores.argmax()]


@pytest.mark.parametrize(
    ("name", "options", "want", "threshold"),
    [
        ("cam", {}, 48.1, 0.3),
        ("fully", {}, 54.0, 0.5),
        ("fully", {"channel_norm": False}, 56.0, 0.3),
        ("Compete(FullyCAM)", {"channel_norm": False}, 59.1, 0.3),
    ],
)
def test_miou_of_the_maps(name, options, want, threshold):
    model = camplug.load_model("demo", checkpoint=WEIGHTS, num_classes=20)
    score, at = best_miou(camplug.create(name, model, **options))
    print(f"{name} {options}: mIoU over background and six animals {score:.1f} at threshold {at:.2f}")
    assert score == pytest.approx(want, abs=0.3)
    assert at == pytest.approx(threshold)


@pytest.mark.parametrize(("name", "options", "threshold"), [("cam", {}, 0.3), ("fully", {"channel_norm": False}, 0.3)])
def test_a_dense_crf_gains_three_points(name, options, threshold):
    explainer = camplug.create(name, camplug.load_model("demo", checkpoint=WEIGHTS, num_classes=20), **options)
    confusion = np.zeros((2, 21, 21), np.int64)
    for photo, truth, classes in list(images())[::4]:
        labels = label_with_background(maps_of(explainer, photo, classes, truth.shape), threshold)
        own = np.array([0, *(c + 1 for c in classes)])
        for k, one in enumerate((labels, refine_labels(photo, labels, len(own)))):
            confusion[k] += confused(truth, own[one])
    before, after = mious(confusion)
    print(f"{name} {options}, every 4th image: {before:.1f}, with a dense CRF {after:.1f}")
    assert after > before + 3
