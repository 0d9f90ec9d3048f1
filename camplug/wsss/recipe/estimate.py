"""Estimates of what stages cost: each is run on a sample of one image, trainings for one step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from typing_extensions import override

from camplug.wsss.recipe.cache import count_bytes
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.measure import measure
from camplug.wsss.recipe.sample import Sample, SampleContext
from camplug.wsss.recipe.stage import Stage
from camplug.wsss.store.jobs import Report
from camplug.wsss.train.progress import ProgressCallback

FEW = 2  # images of a training step
LONG = 8.0  # seconds at half the side above which the whole side is not run
COPIES = 6  # of weights: two checkpoints with the state of the optimizer, and the file
HALF = "time and memory from half the side"


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
            with measure(sample.device) as found:
                context.run(stage)
            size = count_bytes(context.cache.get_folder(stage))
    seconds = found["seconds"] if watch.seconds is None else watch.seconds
    return Cost(seconds, bytes=size, memory=found["base"] + found["grown"])


def estimate_images(
    stage: Stage,
    sample: Sample,
    prepare: Callable[[Stage, StageContext], Callable[..., Report]],
    *,
    classes: int | None = None,
    resizes: bool = False,
    count: int = 1,
) -> Cost:
    """Return the cost of a stage that makes one result per image.

    Half the side is run first, and the whole one unless that takes long.

    Args:
        stage: the stage.
        sample: image to run it on.
        prepare: function that loads what the stage needs and returns the function that makes the results.
        classes: number of classes of the data; None keeps the sample's.
        resizes: True if the image is brought to a size that does not depend on its own.
        count: number of copies of the image that are gone through, for stages that work in batches.
    """
    halves = [False] if resizes else [True, False]
    for half in halves:
        with sample.open_context(half=half, classes=classes, count=count) as context:
            make = prepare(halve_long_side(stage) if half else stage, context)
            with measure(sample.device) as found:
                report = make()
        if report.broken:
            raise RuntimeError(report.broken[0][1])
        cost = Cost(found["seconds"] / count, bytes=report.bytes / count, memory=found["base"] + found["grown"])
        if half and found["seconds"] > LONG:
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
        prepare: function that builds the network and a batch, from a context, the side of the crops and the number of
            images, and returns the function that computes the loss.
        crop: side of the crops.
        batch: images per step.
        count: number of images to measure with.

    Returns:
        The cost without disk.
    """
    small = max(32, crop // 64 * 32)
    notes = [] if batch == count else [f"memory and time from {count} images to a batch of {batch}"]
    for side in (small, crop):
        with sample.open_context(count=count) as context:
            compute_loss = prepare(context, side, count)
            with measure(sample.device) as found:
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
