"""Data, classifiers and clocks that the benchmarks of a device share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

import camplug
from camplug.wsss.data import SegmentationData, open_data

LITE0 = "timm:tf_efficientnet_lite0"
READS = camplug.Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3)  # of both weight files
LISTS = {"train": Path("tests/voc12_animals_train.txt"), "val": Path("tests/voc12_animals_val.txt")}
SCENES = "scenes:"
SMALL = "import:benchmarks.small:body"


class Part(SegmentationData):
    """The images `start`, `start` + `step`, ... of a data set, at most `count`; each photograph is decoded once."""

    def __init__(self, data: SegmentationData, count: int | None = None, step: int = 1, *, keep: bool = False) -> None:
        self.data, self.numbers = data, list(range(0, len(data), step))[:count]
        self.classes, self.has_masks = data.classes, data.has_masks
        self.ids = tuple(data.ids[i] for i in self.numbers)
        self._photo = lru_cache(maxsize=None if keep else 0)(lambda i: data.photo(self.numbers[i]))

    def labels(self, i: int) -> tuple[int, ...]:
        return self.data.labels(self.numbers[i])

    def photo(self, i: int) -> Image:
        return self._photo(i)

    def mask(self, i: int) -> NDArray[np.uint8]:
        return self.data.mask(self.numbers[i])


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where, on what and with which weights a benchmark runs."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", help="VOCdevkit/VOC2012, or scenes:COUNT", required=True)
    parser.add_argument("--weights", type=Path, help="folder with voc_animals_lite0.pt and imagenet_lite0.pt")
    parser.add_argument("--json", type=Path, required=True, help="write everything here")


def opened(text: str, split: str) -> SegmentationData:
    """A split of VOC (train and val are those of the animals subset), or drawn scenes."""
    if text.startswith(SCENES):
        return open_data(text)
    return open_data(f"voc:{text}", str(LISTS.get(split, split)))


def classifier(weights: Path | None, device: str) -> torch.nn.Module:
    """The 20-class EfficientNet-Lite0 of the animals subset; without weights a small network that was not trained."""
    if weights is None:
        torch.manual_seed(0)
        body = camplug.load_model(SMALL)
        head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(128, 6))
        model = torch.nn.Sequential(body, head).eval()
        model.pretrained_cfg = body.pretrained_cfg  # type: ignore[assignment]
        return model.to(device)
    return camplug.load_model(LITE0, checkpoint=weights / "voc_animals_lite0.pt", num_classes=20).to(device)


def beginning(weights: Path | None, device: str) -> torch.nn.Module:
    """Return the network that a training begins with: EfficientNet-Lite0 of ImageNet; without weights the small one."""
    if weights is None:
        return camplug.load_model(SMALL).to(device)
    model = camplug.load_model(LITE0, pretrained=False)
    values = torch.load(weights / "imagenet_lite0.pt", weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))  # the package's order, not timm's names
    return model.to(device)


def wait(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


@contextmanager
def clocked(seconds: dict[str, float], what: str, device: str) -> Iterator[None]:
    """Add the time of a block to `seconds[what]`, the device's work included."""
    start = time.perf_counter()
    yield
    wait(device)
    seconds[what] = seconds.get(what, 0.0) + time.perf_counter() - start


def peak_mib(device: str) -> float | None:
    """The largest memory that tensors took on the device, in MiB; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.startswith("cuda") else None


def facts(device: str) -> dict[str, Any]:
    """The device and the versions."""
    from measure import machine

    where = torch.device(device)
    found = machine(where, ["camplug", "torch", "torchvision", "timm", "lightning", "numpy"])
    return found | {"cuda": torch.version.cuda if where.type == "cuda" else None}
