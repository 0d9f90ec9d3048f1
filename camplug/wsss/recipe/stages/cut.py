"""Stage that finds one threshold for all maps by Otsu's method, and the choice of thresholds."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from typing_extensions import override

from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.estimate import Cost, estimate_run
from camplug.wsss.recipe.graph import RecipeGraph
from camplug.wsss.recipe.sample import Sample
from camplug.wsss.recipe.sections import OTSU, get_threshold_part
from camplug.wsss.recipe.stage import Inputs, Outcome, Stage, StageKind
from camplug.wsss.recipe.stages.evaluate import add_evaluation
from camplug.wsss.seeds import SeedFolder, compute_otsu_of_seeds
from camplug.wsss.seeds.otsu import MAX_IMAGES


class CutStage(StageKind):
    """Threshold that separates the values of all maps best, found by the first process for all."""

    name = "cut"
    reads = ()
    inputs: ClassVar[Inputs] = {"maps": ("maps",)}
    output = "figures"

    @override
    def run(self, stage: Stage, context: StageContext) -> Outcome:
        if context.share[0]:
            return {}
        maps, ids = SeedFolder(context.get_input(stage, "maps")), context.view(stage).ids
        (threshold,), images = compute_otsu_of_seeds(maps, ids, 2, lambda count: context.watch.steps(stage.name, count))
        return {"images": images, "figures": {"threshold": threshold, "images": images}}

    @override
    def estimate(self, stage: Stage, sample: Sample) -> Cost:
        return replace(estimate_run(stage, sample), bytes=0.0)

    @override
    def limit_images(self, stage: Stage) -> int:
        return MAX_IMAGES


def add_choice(graph: RecipeGraph, threshold: float | str | None) -> Stage | None:
    """Return the stage that chooses a threshold of the graph's maps, added if needed; None for a fixed threshold."""
    part = get_threshold_part(threshold)
    if part is None and threshold != OTSU:
        return None
    product = graph.maps["train" if part is None else graph.find_holder(part)]
    name = f"cut {product.kind}" if part is None else f"choose {product.kind} {part}"
    known = [stage for stage in graph.stages if stage.name == name]
    if known:
        return known[0]
    if part is None:
        return graph.add(Stage(name, CutStage.name, {}, {"maps": product}, "train"))
    return add_evaluation(graph, product, part, name=name)


def evaluate_maps(graph: RecipeGraph, threshold: float | str | None) -> None:
    """Add the stages that score the graph's maps at a threshold."""
    for part in graph.recipe.evaluate.products_on:
        choice = add_choice(graph, threshold)
        add_evaluation(graph, graph.maps[part], graph.find_scored(part), threshold=threshold, choice=choice)
