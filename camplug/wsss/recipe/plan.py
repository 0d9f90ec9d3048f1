"""Plan of a run: the state of each stage and an estimate of its cost."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from camplug.errors import CamplugError, InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.recipe.data import TYPICAL, VARIABLE, ImageList
from camplug.wsss.recipe.estimate import Cost
from camplug.wsss.recipe.graph import list_stages
from camplug.wsss.recipe.placeholder_data import SyntheticImages
from camplug.wsss.recipe.recipe import Recipe
from camplug.wsss.recipe.sample import Sample
from camplug.wsss.recipe.stage import Data, Stage, get_stage

FOLDERS = ("voc", "coco", "folder", "photos")  # kinds of data sets that lie on disk


@dataclass
class Row:
    """Stage in a plan.

    Attributes:
        stage: name of the stage.
        state: "made before", "begun" or "to run".
        images: number of images, if known.
        epochs: number of epochs of a training.
        seconds, bytes, memory: estimated time (what is left of it, where a stage was begun), disk, and memory at the
            peak; None if unknown.
        notes: remarks on figures that are scaled, or the reason why nothing is measured.
    """

    stage: str
    state: str
    images: int | None
    epochs: int | None = None
    seconds: float | None = None
    bytes: float | None = None
    memory: float | None = None
    notes: list[str] = field(default_factory=list)


def plan_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    probe: bool = True,
    device: str = "cpu",
    notify: Callable[[str], None] = lambda stage: None,
) -> list[Row]:
    """Return the stages of a recipe, whether they are made, and estimates of what the others cost.

    Time and memory are measured on one image, or on one training step with two images at the real crop, with untrained
    networks, and multiplied by the number of images. Synthetic images of a usual size replace data that are not on
    disk.

    Args:
        recipe: the settings.
        out: folder of the run.
        probe: False estimates nothing.
        device: device to measure on.
        notify: function that is called with the name of each stage that is measured.

    Raises:
        InputError: a threshold is to be chosen where it must not; data that are on disk cannot be opened.
    """
    data: dict[str, SegmentationData] = {}
    missing: dict[str, str] = {}
    for name, part in recipe.data.items():
        if VARIABLE.search(part.data):
            missing[name] = f"{part.data} is not set"
            continue
        try:
            data[name] = part.open()
        except InputError as error:
            if is_on_disk(part):
                raise InputError(f"data.{name}: {error}") from None
            missing[name] = str(error)
    stages = list_stages(recipe, data)
    rows = make_rows(recipe, stages, Cache(Path(out), data), device if probe else None, notify)
    for row, stage in zip(rows, stages, strict=True):
        if stage.part in missing:
            row.notes.insert(0, f"data.{stage.part} is not on disk")
    return rows


def make_rows(
    recipe: Recipe,
    stages: Sequence[Stage],
    cache: Cache,
    device: str | None,
    notify: Callable[[str], None] = lambda stage: None,
) -> list[Row]:
    """Return the rows of stages in a plan.

    Args:
        recipe: the settings.
        stages: stages of the recipe.
        cache: folders of the stages.
        device: device to measure on; None estimates nothing.
        notify: see `plan_recipe`.
    """
    data = cache.data
    costs = None if device is None else CostEstimator(recipe, data, device)
    rows = []
    for stage in stages:
        epochs = get_stage(stage.kind).count_epochs(stage)
        row = Row(stage.name, _get_state(stage, cache), _count_images(stage, recipe, data), epochs)
        rows.append(row)
        if costs is not None and row.state != "made before":
            notify(stage.name)
            costs.add(stage, row)
            if row.seconds is not None and row.state == "begun":
                row.seconds = max(0.0, row.seconds - cache.load_spent_seconds(stage))
    return rows


def is_on_disk(part: ImageList) -> bool:
    """Return whether the data of a list of images are there; True for kinds of data that have no folder.

    >>> is_on_disk(ImageList("voc:nowhere/VOC2012?masks=none")), is_on_disk(ImageList("folder:.")), is_on_disk(
    ...     ImageList("scenes:8"))
    (False, True, True)
    """
    kind, colon, rest = part.data.partition(":")
    place = (rest if kind in FOLDERS else part.data).partition("?")[0]
    return (bool(colon) and kind not in FOLDERS) or Path(place).expanduser().exists()


def _get_state(stage: Stage, cache: Cache) -> str:
    if cache.load_document(stage) is not None:
        return "made before"
    return "begun" if cache.get_key(stage) is not None and cache.get_folder(stage).is_dir() else "to run"


def _count_images(stage: Stage, recipe: Recipe, data: Data) -> int | None:
    assert stage.part is not None
    count = len(data[stage.part]) if stage.part in data else recipe.data[stage.part].images
    only = get_stage(stage.kind).limit_images(stage)
    return count if only is None or count is None else min(only, count)


class CostEstimator:
    """Estimates of stages on samples, scaled to all images."""

    def __init__(self, recipe: Recipe, data: Data, device: str) -> None:
        self.samples: dict[str, Sample] = {}
        self.known: dict[str, Cost] = {}
        self.synthetic: set[str] = set()
        for name, part in recipe.data.items():
            size, shown, classes = TYPICAL[part.kind]
            if name in data:
                images = data[name]
            else:
                count = len(next(iter(data.values())).classes) if data else classes
                images = SyntheticImages(part.size or size, count, shown)
                self.synthetic.add(name)
            self.samples[name] = Sample(images, device)

    def estimate(self, stage: Stage, sample: Sample) -> Cost:
        """Return the cost of a stage; the same work on images of the same size is measured once."""
        own = {k: v for k, v in stage.settings.items() if k not in ("only", "truth", "threshold")}
        inputs = {role: other.kind for role, other in stage.inputs.items()}
        key = json.dumps([stage.kind, own, inputs, sample.size, sample.shown])
        if key not in self.known:
            self.known[key] = get_stage(stage.kind).estimate(stage, sample)
        return replace(self.known[key], scaled=list(self.known[key].scaled))

    def add(self, stage: Stage, row: Row) -> None:
        """Put a stage's costs into its row."""
        assert stage.part is not None
        sample = self.samples[stage.part]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of training steps without a trainer
                cost = self.estimate(stage, sample)
        except (CamplugError, RuntimeError, MemoryError, OSError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            row.notes.append(f"not measured ({first})")
            return
        row.memory = cost.memory
        row.notes += cost.scaled
        if stage.part in self.synthetic:
            row.notes.append(f"measured on pictures of {sample.size[1]}x{sample.size[0]}")
        if row.images is not None:
            again = get_stage(stage.kind).count_repeats(
                stage, None if stage.part in self.synthetic else sample.data.ids
            )
            row.seconds = (row.images + again) * cost.seconds * (row.epochs or 1) + row.images * cost.fixed
            row.bytes = row.images * cost.bytes + cost.files
