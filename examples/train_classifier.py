"""Train an ordinary multi-label classifier on image-level labels, and explain it. Needs camplug[train]."""

import tempfile
from itertools import pairwise
from pathlib import Path

from torch import nn

import camplug
from camplug.wsss.classifier import LearningSettings, SpanSettings, load_classifier, train_classifier
from camplug.wsss.data import Scenes
from camplug.wsss.train import ScheduleSettings

out, preprocess = Path(tempfile.mkdtemp()), camplug.Preprocess((64, 64), (0.5,) * 3, (0.25,) * 3)
train, val = Scenes(120, (64, 64), 0, 4), Scenes(40, (64, 64), 1, 4)


def body() -> nn.Sequential:
    """A small network that puts out its last feature map; timm and torchvision models need no such thing."""
    widths, strides = (3, 16, 32, 64, 128), (2, 2, 2, 1)
    parts = zip(pairwise(widths), strides, strict=True)
    return nn.Sequential(
        *(nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.BatchNorm2d(b), nn.ReLU()) for (a, b), s in parts)
    )


# it begins at random: trained batch norm, no frozen layers; the presets "irn" and "modern" are for pretrained networks
schedule = ScheduleSettings("adamw", lr=3e-3, weight_decay=0.01, warmup=0.2, shape="one-cycle")
learning = LearningSettings(schedule, head_lr=1.0, cut=None, batch_norm="train")
done = train_classifier(
    body(),
    train,
    out,
    learning=learning,
    span=SpanSettings(epochs=10, batch=16, crop=64, sides=(64, 80)),
    validation=val,
    keep="best",  # by the mean average precision on labels
    preprocess=preprocess,
)
print(f"mean average precision on {len(val)} other scenes: {done.losses['val_map']:.2f}")
model = load_classifier(done.file, body())
found = camplug.FullyCAM(model).explain(val.photo(0), list(val.labels(0)))
print(f"scene 0 shows {', '.join(found.names)}; logits {', '.join(f'{s:.1f}' for s in found.scores)}")
