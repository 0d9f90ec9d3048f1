"""Stage that makes activation maps, and the section `seeds` of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from typing_extensions import override

import camplug
from camplug.explain.lpcam import list_files
from camplug.models.preprocess import find_preprocess
from camplug.settings import prefix_errors, restore_part, to_plain
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.estimate import Cost, estimate_images
from camplug.wsss.recipe.graph import RecipeGraph
from camplug.wsss.recipe.sample import Sample
from camplug.wsss.recipe.sections import check_threshold, check_threshold_part
from camplug.wsss.recipe.stage import Inputs, Stage
from camplug.wsss.recipe.stages.base import ImageStage
from camplug.wsss.recipe.stages.cut import evaluate_maps
from camplug.wsss.seeds import SeedFolder, SeedSettings, choose_batch, prepare_seeds
from camplug.wsss.store.jobs import Report


@dataclass(frozen=True)
class SeedSection(SeedSettings):
    """Section of the maps: their settings, and the threshold at which they are scored.

    Args:
        threshold: threshold at which maps are scored: a number, "best on" a list, or "otsu" (see
            `PseudoLabelSettings`); None takes the best on the scored images, which the report calls optimistic.
    """

    threshold: float | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_threshold(self.threshold)


class SeedsStage(ImageStage):
    """Activation maps of every image for the classes that it is labelled with."""

    name = "seeds"
    version = 2
    reads = ("photographs", "labels")
    inputs: ClassVar[Inputs] = {"network": ("network",)}
    output = "maps"
    section = "seeds"
    settings_type = SeedSection
    panel = "seeds"
    cost_note = "disk: maps of no training"

    @override
    def read_settings(self, value: Any, sections: Mapping[str, Any]) -> SeedSection:
        found: SeedSection = super().read_settings(value, sections)
        with prefix_errors("seeds.explainer"):
            camplug.create(found.explainer, _build_example())
        check_threshold_part(found.threshold, sections["data"], "seeds")
        return found

    @override
    def add_stages(self, graph: RecipeGraph) -> None:
        recipe, network = graph.recipe, graph.name_network()
        own = to_plain(recipe.seeds)
        tuning = {"batch": own.pop("batch")}
        settings = {k: v for k, v in own.items() if k != "threshold"} | network.settings
        files = (*network.files, *list_files(camplug.create(recipe.seeds.explainer, _build_example())))
        for part in graph.list_parts():
            stage = Stage(f"seeds {part}", self.name, settings, network.inputs, part, files, tuning)
            graph.maps[part] = graph.add(stage)
        is_walked = recipe.refine.walk is not None
        evaluate_maps(graph, recipe.seeds.threshold if is_walked else recipe.pseudo_labels.threshold)

    @override
    def prepare(self, stage: Stage, context: StageContext) -> Callable[..., Report]:
        settings: SeedSettings = restore_part(SeedSettings, {**stage.settings, **stage.tuning})
        model = context.load_network(stage)
        preprocess = context.make_preprocess(stage, model, settings.long_side)
        explainer = camplug.create(settings.explainer, model, preprocess=preprocess)
        open_folder = partial(context.prepare_folder, stage, SeedFolder)
        network = context.describe_network(stage, model)
        return prepare_seeds(explainer, settings, context.view(stage), open_folder, network=network)

    @override
    def estimate(self, stage: Stage, sample: Sample) -> Cost:
        with sample.open_context() as context:
            model = context.load_network(stage)
            classes = _count_classes(model, sample.device)
        count = choose_batch(model, stage.tuning["batch"])
        resizes = stage.settings["long_side"] is None
        return self.add_note(
            estimate_images(stage, sample, self.prepare, classes=classes, resizes=resizes, count=count)
        )


def _count_classes(model: nn.Module, device: str) -> int:
    """Return the number of classes of a classifier."""
    classes = getattr(model, "classes", None)
    if classes is not None:
        return len(classes)
    with torch.no_grad():
        return int(model(torch.zeros(1, 3, *find_preprocess(model).size, device=device)).shape[-1])


def _build_example() -> nn.Module:
    """Return the smallest classifier, to check the options of an explainer on."""
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)).eval()
