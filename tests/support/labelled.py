"""Scenes beside their label pictures, for the tests of segmentation networks; the data's own masks are barred."""

from __future__ import annotations

from pathlib import Path

import trainable

from camplug.wsss.data import Scenes
from camplug.wsss.deeplab import DeepLabNetworkSettings, DeepLabSettings, train_deeplab
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.train import ScheduleSettings, TrainSettings

SCHEDULE = ScheduleSettings("sgd", 0.02, momentum=0.9, weight_decay=5e-4)
NETWORK = DeepLabNetworkSettings(output_stride=None, batch_norm="train", head_lr=2.0, schedule=SCHEDULE)
SPAN = TrainSettings(epochs=2, batch=4, crop=48, scales=(0.8, 1.2))
SETTINGS = DeepLabSettings(NETWORK, SPAN)


class Unmasked(Scenes):
    """Scenes whose masks nobody may read."""

    def mask(self, i):
        raise AssertionError("a mask was read")


def scenes(count: int = 10, seed: int = 0) -> Unmasked:
    return Unmasked(count, (48, 48), seed=seed, classes=3)


def labels(path: Path, count: int = 10, seed: int = 0) -> Path:
    data = Scenes(count, (48, 48), seed=seed, classes=3)
    folder = LabelFolder(path)
    folder.prepare({"classes": list(data.classes)})
    for i, name in enumerate(data.ids):
        folder.save(name, data.mask(i))
    return path


def trained(tmp_path: Path, out: str = "out", settings: DeepLabSettings = SETTINGS, **options):
    folder = tmp_path / "labels"
    if not folder.exists():
        labels(folder)
    model, data = options.pop("model", None), options.pop("data", None)
    return train_deeplab(
        trainable.net() if model is None else model,
        scenes() if data is None else data,
        folder,
        tmp_path / out,
        settings,
        **options,
    )
