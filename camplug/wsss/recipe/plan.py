"""What a run would do: each stage, made before or to be run, and about what it costs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from camplug.errors import CamplugError, InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.recipe.data import USUAL, VARIABLE
from camplug.wsss.recipe.recipe_settings import Recipe
from camplug.wsss.recipe.stages import Stage, stages_of
from camplug.wsss.seeds.otsu import MOST

if TYPE_CHECKING:
    from camplug.wsss.recipe.probe import Cost, Probe

EPOCHS = {"classifier": ("span",), "affinities": ("training", "training"), "deeplab": ("training", "training")}


@dataclass
class Row:
    """A stage in a plan.

    Attributes:
        stage: its name.
        state: "made before", "begun" or "to run".
        images: that it goes through, if that is known.
        epochs: of a training.
        seconds, bytes, memory: about what it takes: time, disk, and memory at its peak; None where that is not known.
        notes: what of these is scaled and not measured, or why nothing is.
    """

    stage: str
    state: str
    images: int | None
    epochs: int | None = None
    seconds: float | None = None
    bytes: float | None = None
    memory: float | None = None
    notes: list[str] = field(default_factory=list)


def plan_of(
    recipe: Recipe,
    out: str | Path,
    *,
    probe: bool = True,
    device: str = "cpu",
    told: Callable[[str], None] = lambda stage: None,
) -> list[Row]:
    """The stages of a recipe, whether they are made, and estimates of what the others cost.

    Time and memory come from a probe: an image, or a training step with two images at the real crop, with the
    network as it is built (its weights do not matter), times the number of images. Where the data are not on disk,
    pictures of a usual size stand for them.

    Args:
        recipe: the settings.
        out: folder of the run.
        probe: whether to measure; otherwise nothing is estimated.
        device: that is measured on.
        told: is told which stage is probed.

    Raises:
        InputError: a threshold is to be chosen where it must not; no camplug data set of that kind.
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
            missing[name] = str(error)
    stages = stages_of(recipe, data)
    cache = Cache(Path(out), data)
    costs = _Costs(recipe, data, device) if probe else None
    rows = []
    for stage in stages:
        row = Row(stage.name, _state(stage, cache), _images(stage, recipe, data), _epochs(stage))
        rows.append(row)
        if stage.part in missing:
            row.notes.append(f"data.{stage.part} is not on disk")
        if costs is not None and row.state != "made before":
            told(stage.name)
            costs.add(stage, row)
    return rows


def _state(stage: Stage, cache: Cache) -> str:
    if cache.done(stage) is not None:
        return "made before"
    return "begun" if cache.key(stage) is not None and cache.folder(stage).is_dir() else "to run"


def _images(stage: Stage, recipe: Recipe, data: dict[str, SegmentationData]) -> int | None:
    assert stage.part is not None
    count = len(data[stage.part]) if stage.part in data else recipe.data[stage.part].images
    only = MOST if stage.kind == "cut" else stage.settings.get("only")
    return count if only is None or count is None else min(only, count)


def _epochs(stage: Stage) -> int | None:
    found = stage.settings
    for name in EPOCHS.get(stage.kind, ()):
        found = found[name]
    return int(found["epochs"]) if stage.kind in EPOCHS else None


class _Costs:
    """Probes stages, and scales what they cost to all images."""

    def __init__(self, recipe: Recipe, data: dict[str, SegmentationData], device: str) -> None:
        from camplug.wsss.recipe.placeholder_data import Blank
        from camplug.wsss.recipe.probe import Probe

        self.probes: dict[str, Probe] = {}
        self.known: dict[str, Cost] = {}
        self.blank: set[str] = set()
        for name, part in recipe.data.items():
            size, shown, classes = USUAL[part.kind]
            if name in data:
                one = data[name]
            else:
                count = len(next(iter(data.values())).classes) if data else classes
                one = Blank(part.size or size, count, shown)
                self.blank.add(name)
            self.probes[name] = Probe(one, device)

    def cost(self, stage: Stage, probe: Probe) -> Cost:
        """What a stage costs; the same work on images of the same size is done once."""
        own = {k: v for k, v in stage.settings.items() if k not in ("only", "truth", "threshold")}
        inputs = {role: other.kind for role, other in stage.inputs.items()}
        key = json.dumps([stage.kind, own, inputs, probe.photos[0].shape, probe.shown])
        if key not in self.known:
            self.known[key] = probe.cost(stage)
        return replace(self.known[key], scaled=list(self.known[key].scaled))

    def add(self, stage: Stage, row: Row) -> None:
        """Put a stage's costs into its row."""
        assert stage.part is not None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of trainings without a trainer
                cost = self.cost(stage, self.probes[stage.part])
        except (CamplugError, RuntimeError, MemoryError, OSError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            row.notes.append(f"not measured ({first})")
            return
        row.memory = cost.memory
        row.notes += cost.scaled
        if stage.part in self.blank:
            height, width = self.probes[stage.part].photos[0].shape[:2]
            row.notes.append(f"measured on pictures of {width}x{height}")
        if row.images is not None:
            row.seconds = row.images * (cost.seconds * (row.epochs or 1) + cost.fixed)
            row.bytes = row.images * cost.bytes + cost.files
