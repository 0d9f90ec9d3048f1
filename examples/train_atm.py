"""Attention transfer and the focused-unfocused module (ATM + FUM) against ordinary training. Needs camplug[train]."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import nn

import camplug
from camplug.metrics import carried, false_discovery_rate, recall
from camplug.wsss.atm import ATM
from camplug.wsss.classifier import Classifier, Learning, Method, Span, train_classifier
from camplug.wsss.data import Scenes
from camplug.wsss.seeds import SeedFolder, make_seeds, score_seeds
from camplug.wsss.train import Schedule

out, preprocess = Path(tempfile.mkdtemp()), camplug.Preprocess((96, 128), (0.5,) * 3, (0.25,) * 3)
splits = {"train": Scenes(240, (96, 128), 0, 4, plain=0.25), "val": Scenes(60, (96, 128), 1, 4, plain=0.25)}
widths, strides = (3, 16, 32, 64, 128), (2, 2, 2, 1)
body = nn.Sequential(
    *(
        nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.BatchNorm2d(b), nn.ReLU())
        for (a, b), s in zip(pairwise(widths), strides, strict=True)
    )
)


def trained(model: nn.Module, name: str, method: Method, epochs: int, lr: float) -> Classifier:
    learning = Learning(Schedule("adamw", lr=lr), head_lr=1.0, cut=None, batch_norm="trained")
    span = Span(epochs, batch=16, crop=96, sides=(96, 160))
    return train_classifier(
        model, splits["train"], out / name, method=method, learning=learning, span=span, preprocess=preprocess
    ).network


def report(name: str, model: Classifier) -> None:
    """The seeds of CAM on other scenes, at the background threshold that is best on those trained on."""
    explainer, sweeps = camplug.create("MultiView(CAM, scales=(1, 2))", model), []
    for split, data in splits.items():
        folder = SeedFolder(out / name / split)
        folder.prepare({"explainer": explainer.name})
        make_seeds(explainer, data, folder)
        sweeps.append(score_seeds(folder, data)[0])
    threshold, miou = carried(*sweeps)
    matrix = sweeps[1].at(threshold)
    found, wrong = (100 * np.nanmean(score(matrix)[1:]) for score in (recall, false_discovery_rate))
    print(f"{name}: mIoU {100 * miou:.1f}, recall {found:.1f}, FDR {wrong:.1f}")


start = trained(body, "start", Method(), 40, 3e-3)  # in place of a network that knows ImageNet
report("ordinary", trained(start, "ordinary", Method(), 10, 1e-3))
# a small network's positions are all alike to the context relation, whose means blur the maps: more recall, more errors
report("ATM + FUM, residual", trained(start, "whole", ATM(residual=True), 10, 1e-3))
report("ATM + FUM's attention", trained(start, "attention", ATM(atrous=False, context=False), 10, 1e-3))
