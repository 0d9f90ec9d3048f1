"""Attention transfer and the focused-unfocused module (ATM + FUM) against ordinary training. Needs camplug[train].

On so few scenes seeds differ by more than the methods do; docs/training.md has the gain on photographs.
"""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

import camplug
from camplug.metrics import apply_best_threshold, false_discovery_rate, recall
from camplug.wsss.atm import ATM
from camplug.wsss.classifier import Classifier, LearningSettings, Method, SpanSettings, train_classifier
from camplug.wsss.data import Scenes
from camplug.wsss.seeds import SeedFolder, make_seeds, score_seeds
from camplug.wsss.train import ScheduleSettings

out, preprocess = Path(tempfile.mkdtemp()), camplug.Preprocess((64, 64), (0.5,) * 3, (0.25,) * 3)
options = {"size": (64, 64), "classes": 4, "objects": (1, 2), "plain": 0.25}
splits = {"train": Scenes(120, seed=0, **options), "val": Scenes(60, seed=1, **options)}
parts = zip(pairwise((3, 16, 32, 64, 64)), (2, 2, 2, 1), strict=True)
torch.manual_seed(0)
body = nn.Sequential(*(nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.BatchNorm2d(b), nn.ReLU()) for (a, b), s in parts))


def trained(model: nn.Module, name: str, method: Method, epochs: int, lr: float) -> Classifier:
    learning = LearningSettings(ScheduleSettings("adamw", lr), head_lr=1.0, cut=None, batch_norm="train")
    span = SpanSettings(epochs, batch=16, crop=64, sides=(56, 84))
    return train_classifier(
        model, splits["train"], out / name, method=method, learning=learning, span=span, preprocess=preprocess
    ).network


def report(name: str, model: Classifier) -> None:
    """The seeds of CAM on other scenes, at the background threshold that is best on those trained on."""
    sweeps = []
    for split, data in splits.items():
        folder = SeedFolder(out / name / split)
        folder.prepare({"explainer": "CAM"})
        make_seeds(camplug.CAM(model), data, folder)
        sweeps.append(score_seeds(folder, data)[0])
    threshold, miou = apply_best_threshold(*sweeps)
    found, wrong = (100 * np.nanmean(of(sweeps[1].at(threshold))[1:]) for of in (recall, false_discovery_rate))
    print(f"{name}: mIoU {100 * miou:.1f}, recall {found:.1f}, FDR {wrong:.1f}", flush=True)


start = trained(body, "start", Method(), 10, 3e-3)  # in place of a network that knows ImageNet
report("ordinary", trained(start, "ordinary", Method(), 4, 1e-3))
report("ATM + FUM", trained(start, "whole", ATM(), 4, 1e-3))
