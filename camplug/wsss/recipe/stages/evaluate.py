"""Stage that scores maps or labels against masks, and the section `evaluate` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from PIL import Image
from typing_extensions import override

from camplug.errors import InputError
from camplug.metrics import Convention, Scores
from camplug.settings import to_plain
from camplug.wsss.data import SegmentationData, make_voc_palette
from camplug.wsss.recipe.context import OPTIMISTIC, StageContext
from camplug.wsss.recipe.data import spread_indices
from camplug.wsss.recipe.estimate import Cost, estimate_run
from camplug.wsss.recipe.graph import RecipeGraph
from camplug.wsss.recipe.sample import Sample
from camplug.wsss.recipe.stage import Inputs, Outcome, Stage, StageKind, get_stage
from camplug.wsss.seeds import SeedFolder, list_thresholds, score_labels, score_seeds
from camplug.wsss.store.identity import hash_names, hash_photographs

TRUTH = "truth"  # folder with the masks that the report shows


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the scores.

    Args:
        classes: classes that means are taken over, beside the background; None takes all.
        convention: mIoU convention that thresholds are chosen by and that comes first; all three are reported.
        products_on: lists on which seeds, refined maps and pseudo-labels are made and scored: train, maybe val.
        pictures: number of images that the report shows.
    """

    classes: tuple[str, ...] | None = None
    convention: Convention = "present"
    products_on: tuple[str, ...] = ("train",)
    pictures: int = 10

    def __post_init__(self) -> None:
        unknown = [name for name in self.products_on if name not in ("train", "val")]
        if unknown or "train" not in self.products_on:
            raise InputError(f"products_on={list(self.products_on)}; give [train] or [train, val].")
        if self.pictures < 0:
            raise InputError(f"pictures={self.pictures}; give 0 or more.")


class EvaluateStage(StageKind):
    """Scores of maps or labels against masks, computed by the first process for all; no other stage opens masks."""

    name = "evaluate"
    reads = ("photographs", "masks")
    inputs: ClassVar[Inputs] = {"product": ("maps", "labels"), "choice": ("figures",)}
    output = "figures"
    section = "evaluate"
    settings_type = EvaluationSettings

    @override
    def read_settings(self, value: Any, sections: Mapping[str, Any]) -> EvaluationSettings:
        found: EvaluationSettings = super().read_settings(value, sections)
        if "val" in found.products_on and "val" not in sections["data"]:
            raise InputError("evaluate.products_on names val, and there is no data.val; give it, or leave val out.")
        return found

    @override
    def run(self, stage: Stage, context: StageContext) -> Outcome:
        if context.share[0]:
            return {}
        product, data = stage.inputs["product"], context.view(stage)
        names, convention = ["background", *data.classes], stage.settings["convention"]
        classes = list_averaged(stage.settings["classes"], names)
        figures: dict[str, Any] = {
            "images_listed": len(data),
            "list_sha256": hash_names(data),
            "photographs_sha256": hash_photographs(data),
            "convention": convention,
            "labels": get_stage(product.kind).describe_labels(product),
        }
        folder = context.get_input(stage, "product")
        if product.has_maps:
            value, how = context.choose_threshold(stage)
            with context.watch.steps(stage.name, len(data)) as step:
                sweep, broken = score_seeds(SeedFolder(folder), data, list_thresholds(value), step)
            best, best_miou = sweep.best(convention, classes)
            if value is None or _is_chosen_here(stage, context, figures["photographs_sha256"]):
                how = OPTIMISTIC
            value = best if value is None else value
            matrix = sweep.at(value)
            figures |= {"threshold": value, "threshold_chosen": how}
            figures |= {"best_threshold_here": best, "best_miou_here": best_miou}
            figures["sweep"] = sweep.as_dict(convention, classes)
        else:
            with context.watch.steps(stage.name, len(data)) as step:
                counted, broken = score_labels(folder, data, step)
            matrix = counted.matrix
        figures |= {"images_scored": len(data) - len(broken), **Scores.of(matrix, names, classes).as_dict()}
        if "truth" in stage.settings:
            _save_masks(stage, context, data)
        return {"images": len(data) - len(broken), "broken": broken, "figures": figures}

    @override
    def estimate(self, stage: Stage, sample: Sample) -> Cost:
        settings = {k: v for k, v in stage.settings.items() if k not in ("truth", "classes")} | {"classes": None}
        return replace(estimate_run(replace(stage, settings=settings), sample), bytes=0.0)


def add_evaluation(
    graph: RecipeGraph,
    product: Stage,
    part: str,
    *,
    threshold: float | str | None = None,
    choice: Stage | None = None,
    name: str | None = None,
) -> Stage | None:
    """Add the stage that scores the results of another one; return None where there are no masks.

    Args:
        graph: stages of the recipe.
        product: stage that makes maps or labels.
        part: list of images with masks.
        threshold: threshold of maps; None for the best one on these images.
        choice: stage that chooses the threshold, if one does.
        name: name of the stage; None for "evaluate" and the product's.
    """
    if part in graph.data and not graph.data[part].has_masks:
        return None
    how = graph.recipe.evaluate
    settings: dict[str, Any] = {"convention": how.convention, "classes": to_plain(how.classes)}
    if product.has_maps:
        settings |= {"threshold": threshold}
    if part == graph.pictured and how.pictures and not any("truth" in stage.settings for stage in graph.stages):
        settings["truth"] = how.pictures
    inputs = {"product": product} | ({} if choice is None else {"choice": choice})
    return graph.add(Stage(name or f"evaluate {product.name}", EvaluateStage.name, settings, inputs, part))


def list_averaged(classes: Sequence[str] | None, names: list[str]) -> list[int]:
    """Return the indices of the classes that means are taken over, the background's among them.

    Raises:
        InputError: a class that the data does not have.
    """
    if classes is None:
        return list(range(len(names)))
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise InputError(f"evaluate.classes names {unknown[0]!r}; the data has {', '.join(names[1:])}.")
    return sorted({0, *(names.index(name) for name in classes)})


def _is_chosen_here(stage: Stage, context: StageContext, photographs: str) -> bool:
    """Return whether the threshold was chosen on the images that are scored."""
    done = context.cache.load_document(stage.inputs["choice"]) if "choice" in stage.inputs else None
    return done is not None and done["figures"].get("photographs_sha256") == photographs


def _save_masks(stage: Stage, context: StageContext, data: SegmentationData) -> None:
    """Save the masks of the images that the report shows."""
    folder = context.cache.get_folder(stage) / TRUTH
    for i in spread_indices(len(data), stage.settings["truth"]):
        try:
            picture = Image.fromarray(data.mask(i))
        except InputError:  # reported where it was scored
            continue
        picture.putpalette(make_voc_palette().tobytes())
        file = folder / f"{data.ids[i]}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
