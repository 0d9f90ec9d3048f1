"""RPNet: a trained classifier learns on, from what images of one class have in common. Needs camplug[train].

"confident" is the share of positions that prototypes are taken of: with many channels the published threshold, 0.3,
leaves hardly any out. RPNet goes on with the trained head. On so few scenes seeds differ by more than the methods do.
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
from camplug.wsss.rpnet import RPNet
from camplug.wsss.seeds import SeedFolder, make_seeds, score_seeds
from camplug.wsss.train import ScheduleSettings

torch.manual_seed(0)
out = Path(tempfile.mkdtemp())
scenes = {"classes": 4, "objects": (1, 2), "plain": 0.25}
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
span = SpanSettings(epochs=14, batch=16, crop=64, sides=(56, 84))
train, model = splits["train"], nn.Sequential(*layers)
start = train_classifier(model, train, out / "start", learning=learning, span=span, preprocess=reads).network
report("an ordinary classifier", start)

learning = replace(learning, schedule=replace(learning.schedule, lr=1e-3), batch_norm="fixed")
span = replace(span, epochs=8)
rpnet = RPNet(images=2, each_first=False, width=64, stages="last,4", threshold=0.9, scales=(1.0, 0.5))
for name, method in {"8 more epochs": Method(), "8 more epochs with RPNet": rpnet}.items():
    done = train_classifier(start, train, out / name, method=method, learning=learning, span=span)
    report(name, done.network)
print(f"confident: {done.losses['confident']:.2f} of all positions")
