"""Estimates of what stages cost: each is run on a sample of one image, trainings for one step."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from camplug.wsss.recipe.cache import Cache, bytes_in
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.data import View
from camplug.wsss.recipe.measure import measured
from camplug.wsss.recipe.placeholder_data import SampleImages, draw_clouds
from camplug.wsss.recipe.sections import NetworkSettings
from camplug.wsss.recipe.stage import Stage, get_stage
from camplug.wsss.seeds import Seed, SeedFolder
from camplug.wsss.store.jobs import Report
from camplug.wsss.train.progress import ProgressCallback

FEW = 2  # images of a training step
LONG = 8.0  # seconds at half the side above which the whole side is not run
COPIES = 6  # of weights: two checkpoints with the state of the optimizer, and the file
HALF = "time and memory from half the side"
THRESHOLD = 0.3  # of placeholder maps


@dataclass
class Cost:
    """Cost of one unit of a stage's work.

    Attributes:
        seconds: time for an image; in trainings for an image in an epoch.
        fixed: time for an image that is spent once beside all epochs.
        bytes: disk for an image.
        files: disk used once, for weights and checkpoints.
        memory: bytes at the peak; in trainings with a whole batch.
        scaled: which of these are scaled, not measured.
    """

    seconds: float
    fixed: float = 0.0
    bytes: float = 0.0
    files: float = 0.0
    memory: float = 0.0
    scaled: list[str] = field(default_factory=list)


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
    def open_context(self, *, half: bool = False, classes: int | None = None) -> Iterator[SampleContext]:
        """Yield a context for the sample in a temporary folder.

        Args:
            half: halve the sides of the image.
            classes: number of classes of the data; None keeps theirs.
        """
        size = tuple(max(1, side // 2) for side in self.size) if half else self.size
        images = SampleImages(self.data, (size[0], size[1]), self.shown, classes)
        with tempfile.TemporaryDirectory() as folder:
            yield SampleContext(self, Path(folder), images)


class SampleContext(StageContext):
    """Context with one image, untrained networks, and smooth maps and labels as the results of earlier stages.

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
    def key(self, stage: Stage) -> str | None:
        return "sample"


class _StepTimer(ProgressCallback):
    """Timer of the steps of a stage."""

    def __init__(self) -> None:
        self.seconds: float | None = None

    @override
    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        start = time.perf_counter()
        yield lambda: None
        self.seconds = (self.seconds or 0.0) + time.perf_counter() - start


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


def estimate_run(stage: Stage, sample: Sample) -> Cost:
    """Return the cost of running a whole stage on one image.

    The time is that of the stage's steps, since what comes before and after them is done once for all images; a stage
    without steps counts as a whole.
    """
    for _ in range(2):  # first runs take longer
        with sample.open_context() as context:
            for role in stage.inputs:
                context.get_input(stage, role)  # placeholders are not part of the cost
            watch = context.watch = _StepTimer()
            with measured(sample.device) as found:
                context.run(stage)
            size = bytes_in(context.cache.folder(stage))
    seconds = found["seconds"] if watch.seconds is None else watch.seconds
    return Cost(seconds, bytes=size, memory=found["base"] + found["grown"])


def estimate_images(
    stage: Stage,
    sample: Sample,
    prepare: Callable[[Stage, StageContext], Callable[..., Report]],
    *,
    classes: int | None = None,
    resizes: bool = False,
) -> Cost:
    """Return the cost of a stage that makes one result per image.

    Half the side is run first, and the whole one unless that takes long.

    Args:
        stage: the stage.
        sample: image to run it on.
        prepare: loads what the stage needs, and returns what makes the results.
        classes: number of classes of the data; None keeps the sample's.
        resizes: whether the image is brought to a size that does not depend on its own.
    """
    halves = [False] if resizes else [True, False]
    for half in halves:
        with sample.open_context(half=half, classes=classes) as context:
            make = prepare(halve_long_side(stage) if half else stage, context)
            with measured(sample.device) as found:
                report = make()
        if report.broken:
            raise RuntimeError(report.broken[0][1])
        cost = Cost(found["seconds"], bytes=report.bytes, memory=found["base"] + found["grown"])
        if half and cost.seconds > LONG:
            memory = found["base"] + 4 * found["grown"]
            return Cost(4 * cost.seconds, bytes=4 * cost.bytes, memory=memory, scaled=[HALF])
    return cost


def halve_long_side(stage: Stage) -> Stage:
    """Return a stage whose setting `long_side` is half of its own, if it has one."""
    side = stage.settings.get("long_side")
    return stage if side is None else replace(stage, settings={**stage.settings, "long_side": max(32, side // 2)})


def estimate_training(
    sample: Sample,
    prepare: Callable[[SampleContext, int, int], Callable[[], Any]],
    *,
    crop: int,
    batch: int,
    count: int = FEW,
) -> Cost:
    """Return the cost of a training, from one step at its crop with a few images, scaled to its batch.

    Args:
        sample: image to train on.
        prepare: builds the network and a batch, from a context, the side of the crops and the number of images, and
            returns what computes the loss.
        crop: side of the crops.
        batch: images per step.
        count: number of images to measure with.

    Returns:
        The cost without disk.
    """
    small = max(32, crop // 64 * 32)
    notes = [] if batch == count else [f"memory and time from {count} images to a batch of {batch}"]
    for side in (small, crop):
        with sample.open_context() as context:
            compute_loss = prepare(context, side, count)
            with measured(sample.device) as found:
                compute_loss().backward()
        ratio = 1.0
        if side == small and found["seconds"] > LONG:
            ratio, notes = (crop / small) ** 2, [HALF, *notes]
            break
    seconds, memory = found["seconds"] * ratio / count, found["base"] + found["grown"] * ratio * batch / count
    return Cost(seconds, memory=memory, scaled=[*notes, "disk from the weights' size"])


def count_file_bytes(network: nn.Module) -> float:
    """Return the bytes that the checkpoints and the file of a network take."""
    return COPIES * sum(p.numel() * p.element_size() for p in network.parameters())


def move_batch(batch: Any, device: str) -> Any:
    """Return a named tuple of tensors on a device."""
    return type(batch)(*(part.to(device) for part in batch))


def draw_crops(count: int, crop: int, classes: int, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Return random images [N,3,S,S] and smooth labels [N,S/stride,S/stride] for a training step."""
    labels = (draw_clouds((crop // stride, crop // stride), 1) * (classes + 1)).astype(np.uint8)
    return torch.rand(count, 3, crop, crop), torch.from_numpy(np.stack([labels] * count))
