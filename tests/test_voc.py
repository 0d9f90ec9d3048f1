"""On real photographs: Fully-CAM finds more of the object than CAM, and competing classes share it better.

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


def best_miou(explainer):
    confusion = np.zeros((len(THRESHOLDS), 21, 21), np.int64)
    for photo, truth, classes in images():
        scale = 320 / max(photo.size)
        small = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
        x = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1
        maps = explainer.maps(x[None], [classes], size=truth.shape)[0].numpy()
        top, best = maps.max(0), np.array(classes)[maps.argmax(0)] + 1
        known = truth != 255
        for t, threshold in enumerate(THRESHOLDS):
            label = np.where(top > threshold, best, 0)
            pairs = truth[known].astype(int) * 21 + label[known]
            confusion[t] += np.bincount(pairs, minlength=441).reshape(21, 21)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    iou = right / (confusion.sum(1) + confusion.sum(2) - right).clip(1)
    scores = 100 * iou[:, SCORED].mean(1)
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
