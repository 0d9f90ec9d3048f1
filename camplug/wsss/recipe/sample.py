"""Sample of a data set on which stages are run for estimates: one image, untrained networks, placeholder results."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.models import load_model
from camplug.settings import restore_settings
from camplug.wsss.data import SegmentationData
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.data import View
from camplug.wsss.recipe.placeholder_data import SampleImages, draw_clouds
from camplug.wsss.recipe.sections import NetworkSettings
from camplug.wsss.recipe.stage import Stage, get_stage
from camplug.wsss.seeds import Seed, SeedFolder

FEW = 2  # images whose labels are counted
THRESHOLD = 0.3  # of placeholder maps


class Sample:
    """First image of a list, on which stages are run with untrained networks and placeholder maps.

    Args:
        data: images of the list.
        device: device of the networks.

    Attributes:
        size: height and width of the image.
        shown: number of classes in an image.
    """

    def __init__(self, data: SegmentationData, device: str = "cpu") -> None:
        self.data, self.device = data, device
        photo = data.photo(0)
        self.size = photo.height, photo.width
        self.shown = max(1, *(len(data.labels(i)) for i in range(min(FEW, len(data)))))
        self.networks: dict[str, nn.Module] = {}

    @contextmanager
    def open_context(
        self, *, half: bool = False, classes: int | None = None, count: int = 1
    ) -> Iterator[SampleContext]:
        """Yield a context for the sample in a temporary folder.

        Args:
            half: halve the sides of the image.
            classes: number of classes of the data; None keeps theirs.
            count: number of copies of the image.
        """
        size = tuple(max(1, side // 2) for side in self.size) if half else self.size
        images = SampleImages(self.data, (size[0], size[1]), self.shown, classes, count)
        with tempfile.TemporaryDirectory() as folder:
            yield SampleContext(self, Path(folder), images)


class SampleContext(StageContext):
    """Context with copies of one image, untrained networks, and placeholder maps and labels as earlier results.

    Args:
        sample: owner of the networks.
        folder: place for all results.
        images: images of every list.
    """

    def __init__(self, sample: Sample, folder: Path, images: SegmentationData) -> None:
        super().__init__(_SampleCache(folder, {}), {}, sample.device)
        self.images, self.networks = images, sample.networks

    @override
    def view(self, stage: Stage) -> SegmentationData:
        return View(self.images, stage.scores)

    @override
    def get_input(self, stage: Stage, role: str) -> Path:
        folder, output = super().get_input(stage, role), get_stage(stage.inputs[role].kind).output
        if not folder.exists():
            if output == "maps":
                save_maps(self.images, SeedFolder(folder))
            elif output == "labels":
                save_labels(self.images, LabelFolder(folder))
        return folder

    @override
    def load_input(self, stage: Stage, role: str) -> Any:
        source = stage.inputs[role]
        return get_stage(source.kind).build_network(source, self)

    @override
    def load_network(self, stage: Stage) -> nn.Module:
        source = stage.inputs["network"].name if "network" in stage.inputs else ""
        key = json.dumps([stage.settings.get("network"), source])
        if key not in self.networks:
            self.networks[key] = self._build_network(stage).to(self.device)
        return self.networks[key]

    def _build_network(self, stage: Stage) -> nn.Module:
        if "network" in stage.inputs:
            network: nn.Module = self.load_input(stage, "network")
            return network
        named = restore_settings(NetworkSettings, stage.settings["network"])
        return load_model(named.model, num_classes=named.num_classes, pretrained=False)

    @override
    def describe_network(self, stage: Stage, model: nn.Module) -> dict[str, Any]:
        return {}

    @override
    def digest_input(self, stage: Stage, role: str) -> str:
        return ""

    @override
    def choose_threshold(self, stage: Stage) -> tuple[float | None, str]:
        return THRESHOLD, "placeholder"


class _SampleCache(Cache):
    """Folders of stages by their names, since placeholder inputs have no digests."""

    @override
    def get_key(self, stage: Stage) -> str | None:
        return "sample"


def save_maps(images: SegmentationData, folder: SeedFolder) -> None:
    """Save smooth maps for all images."""
    folder.prepare({"classes": list(images.classes)})
    for i, name in enumerate(images.ids):
        photo, labels = images.photo(i), images.labels(i)
        size = photo.height, photo.width
        maps = np.stack([draw_clouds(size, 7 + k) for k in range(len(labels))])
        folder.save(name, Seed((255 * maps).astype(np.uint8), labels, size, np.zeros(0, np.float32)))


def save_labels(images: SegmentationData, folder: LabelFolder) -> None:
    """Save the images' masks as their labels."""
    folder.prepare({"classes": list(images.classes)})
    for i, name in enumerate(images.ids):
        folder.save(name, images.mask(i))


def move_batch(batch: Any, device: str) -> Any:
    """Return a named tuple of tensors on a device."""
    return type(batch)(*(part.to(device) for part in batch))


def draw_crops(count: int, crop: int, classes: int, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Return random images [N,3,S,S] and smooth labels [N,S/stride,S/stride] for a training step."""
    labels = (draw_clouds((crop // stride, crop // stride), 1) * (classes + 1)).astype(np.uint8)
    return torch.rand(count, 3, crop, crop), torch.from_numpy(np.stack([labels] * count))
