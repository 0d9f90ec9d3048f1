"""Train DeepLab on label pictures, and segment photographs that it has not seen. Needs camplug[train]."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import nn

import camplug
from camplug.metrics import ConfusionMatrix, miou
from camplug.wsss.data import Scenes
from camplug.wsss.deeplab import DeepLabNetworkSettings, DeepLabSettings, Segmenter, load_deeplab, train_deeplab
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.train import ScheduleSettings, TrainSettings

out, preprocess = Path(tempfile.mkdtemp()), camplug.Preprocess((64, 64), (0.5,) * 3, (0.25,) * 3)
train, val = Scenes(80, (64, 64), 0, 3), Scenes(20, (64, 64), 1, 3)


def body() -> nn.Sequential:
    """A small network that puts out its last feature map; timm and torchvision models need no such thing."""
    widths, strides = (3, 16, 32, 64, 64), (2, 2, 2, 1)
    parts = zip(pairwise(widths), strides, strict=True)
    return nn.Sequential(
        *(nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.BatchNorm2d(b), nn.ReLU()) for (a, b), s in parts)
    )


# label pictures, as `camplug pseudo-labels` makes them; here the scenes' own masks stand for them
labels = LabelFolder(out / "labels")
labels.prepare({"classes": list(train.classes)})
for i, name in enumerate(train.ids):
    labels.save(name, train.mask(i))

# it begins at random: trained batch norm and a higher rate; the defaults are for pretrained networks
network = DeepLabNetworkSettings(
    head="aspp",
    output_stride=4,
    dilations=(1, 2, 4),
    batch_norm="train",
    head_lr=1.0,
    schedule=ScheduleSettings("adamw", lr=4e-3, weight_decay=0.01),
)
span = TrainSettings(epochs=16, batch=8, crop=64, scales=(0.75, 1.25))
done = train_deeplab(body(), train, labels.path, out, DeepLabSettings(network, span), preprocess=preprocess)

segmenter = Segmenter(load_deeplab(done.file, body()), scales=(1, 1.5), flip=True, crf="deeplab")
matrix = ConfusionMatrix(1 + len(val.classes))
for i in range(len(val)):
    matrix.add(segmenter(np.asarray(val.photo(i))), val.mask(i))
print(f"mIoU on {len(val)} other scenes: {100 * miou(matrix.matrix):.1f} %")
