"""FPR: a trained classifier learns on, away from the false positives of its own class maps. Needs camplug[train].

Class k of these scenes stands mostly on ground k, so that class maps leak into the ground.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import camplug
from camplug.metrics import false_discovery_rate, miou, recall
from camplug.wsss.classifier import Classifier, LearningSettings, Method, SpanSettings, train_classifier
from camplug.wsss.data import Scenes
from camplug.wsss.fpr import FPR
from camplug.wsss.seeds import SeedFolder, make_seeds, score_seeds
from camplug.wsss.train import ScheduleSettings

torch.manual_seed(0)
out = Path(tempfile.mkdtemp())
scenes = {"classes": 4, "objects": (1, 2), "cooccurrence": 0.9, "plain": 0.25}
splits = {"train": Scenes(120, (64, 64), 0, **scenes), "val": Scenes(60, (64, 64), 1, **scenes)}


def report(name: str, network: Classifier) -> None:
    sweeps = {}
    for split, data in splits.items():
        folder = SeedFolder(out / "seeds" / name / split)
        make_seeds(camplug.CAM(network), data, folder)
        sweeps[split] = score_seeds(folder, data)[0]
    threshold, _ = sweeps["train"].best()  # the only use of masks: a threshold, the best on train
    matrix = sweeps["val"].at(threshold)
    found, false = (100 * np.nanmean(f(matrix)[1:]) for f in (recall, false_discovery_rate))
    print(f"{name}: on val mIoU {100 * miou(matrix):.1f}, recall {found:.1f}, false discovery rate {false:.1f}")


widths = ((3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1))
layers = [nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b, s in widths]
reads = camplug.Preprocess((64, 64), (0.5,) * 3, (0.25,) * 3)
learning = LearningSettings(
    ScheduleSettings("adamw", 3e-3, weight_decay=0.01), head_lr=1.0, cut=None, batch_norm="train"
)
span = SpanSettings(epochs=16, batch=16, crop=64, sides=(56, 84))
train, model = splits["train"], nn.Sequential(*layers)
start = train_classifier(model, train, out / "start", learning=learning, span=span, preprocess=reads).network
report("an ordinary classifier", start)

learning = replace(learning, schedule=replace(learning.schedule, lr=1e-3), batch_norm="fixed")
span = replace(span, epochs=6)
further = {
    "6 more epochs": Method(),
    "6 more epochs with FPR": FPR(pixel_rectification=0.05),  # the published weight, 15e-5, is for ResNet-50
}
for name, method in further.items():
    done = train_classifier(start, train, out / name, method=method, learning=learning, span=span, keep_head=True)
    report(name, done.network)
