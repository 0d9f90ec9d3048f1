"""Region prototypes (RPNet): train a classifier on pairs of images of one class. Needs camplug[train]."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

import camplug
from camplug.metrics import Scores
from camplug.wsss.classifier import Learning, Method, Span, train_classifier
from camplug.wsss.data import Scenes
from camplug.wsss.rpnet import RPNet
from camplug.wsss.seeds import SeedFolder, make_seeds, score_seeds
from camplug.wsss.train import Schedule

torch.manual_seed(0)
out, preprocess = Path(tempfile.mkdtemp()), camplug.Preprocess((64, 64), (0.5,) * 3, (0.25,) * 3)
train, val = Scenes(120, (64, 64), 0, 4), Scenes(40, (64, 64), 1, 4)
widths = (3, 16, 32, 64, 128)
strides = (2, 2, 2, 1)
layers = [
    nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.BatchNorm2d(b), nn.ReLU())
    for (a, b), s in zip(pairwise(widths), strides, strict=True)
]
body = nn.Sequential(*layers)  # puts out its last feature map; the head is new
learning = Learning(Schedule("adamw", lr=3e-3), head_lr=1.0, cut=None, batch_norm="trained")
span = Span(epochs=24, batch=16, crop=64, sides=(64, 80))

for method in (Method(), RPNet(width=64, stages="last,4", scales=(1.0, 0.5))):
    done = train_classifier(
        body, train, out / method.name, method=method, learning=learning, span=span, preprocess=preprocess
    )
    sweeps = []
    for name, data in (("train", train), ("val", val)):
        seeds = SeedFolder(out / method.name / "seeds" / name)
        make_seeds(camplug.CAM(done.network), data, seeds)
        sweeps.append(score_seeds(seeds, data)[0])
    threshold = sweeps[0].best()[0]  # of the background, best on train
    score = Scores.of(sweeps[1].at(threshold))
    recall, fdr = np.nanmean(score.recall[1:]), np.nanmean(score.false_discovery_rate[1:])
    print(f"{method.name}: mIoU {100 * score.miou_present:.1f}, recall {100 * recall:.1f}, FDR {100 * fdr:.1f} on val")
