"""Small classifiers and data to train them on, for the tests of trainings."""

from __future__ import annotations

import torch
from torch import nn

from camplug.wsss.classifier import LearningSettings, SpanSettings, train_classifier
from camplug.wsss.data import Scenes
from camplug.wsss.train import ScheduleSettings

LEARNING = LearningSettings(
    ScheduleSettings("adamw", 3e-3, weight_decay=0.01), head_lr=1.0, cut=None, batch_norm="train"
)
SPAN = SpanSettings(epochs=2, batch=8, crop=48, sides=(48, 48))


class Net(nn.Module):
    """Puts out its last map, of stride 8; pooled by whoever takes it."""

    image_size = 48
    pretrained_cfg = {"input_size": (3, 48, 48), "mean": (0.5,) * 3, "std": (0.25,) * 3}  # noqa: RUF012

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())

    def forward(self, x):
        return self.three(self.two(self.one(x)))


def scenes(count: int = 16, seed: int = 0, **options) -> Scenes:
    return Scenes(count, (48, 48), seed=seed, classes=options.pop("classes", 3), **options)


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net()


def trained(out, data=None, model=None, **options):
    options = {"learning": LEARNING, "span": SPAN, **options}
    return train_classifier(net() if model is None else model, scenes() if data is None else data, out, **options)


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
