"""Stage that cuts maps into pseudo-labels, and the section `pseudo_labels` of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from typing_extensions import override

from camplug.errors import InputError
from camplug.settings import restore_part, to_plain, update_settings
from camplug.wsss.crf import CRFSettings, PARSettings
from camplug.wsss.crf.settings import resolve_refinement
from camplug.wsss.pseudo import LabelFolder, LabelSettings, PseudoLabels, Threshold, prepare_labels
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.graph import RecipeGraph
from camplug.wsss.recipe.sections import check_threshold, check_threshold_part, read_section
from camplug.wsss.recipe.stage import Inputs, Outcome, Stage
from camplug.wsss.recipe.stages.base import ImageStage, restore_refinement
from camplug.wsss.recipe.stages.cut import add_choice
from camplug.wsss.recipe.stages.evaluate import add_evaluation
from camplug.wsss.recipe.walks import find_walk
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.store.jobs import Report


@dataclass(frozen=True)
class PseudoLabelSettings(LabelSettings):
    """Section of the pseudo-labels: their settings, threshold and refinement.

    Args:
        threshold: largest value of background: a number, "best on" a list of images with masks, or "otsu", which
            separates the values of all maps of train best, without a mask; see
            `camplug.wsss.seeds.compute_otsu_thresholds`.
        optimistic: permission for that list to share images with those that are reported.
        crf: name or settings of a dense CRF, "par" for pixel-adaptive refinement, or None.
    """

    threshold: float | str | None = None
    optimistic: bool = False
    crf: CRFSettings | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_threshold(self.threshold)
        resolve_refinement(self.crf)


class LabelsStage(ImageStage):
    """Pseudo-labels: maps cut at a threshold, with a dense CRF if wanted."""

    name = "labels"
    inputs: ClassVar[Inputs] = {"maps": ("maps",), "choice": ("figures",)}
    output = "labels"
    section = "pseudo_labels"
    settings_type = PseudoLabelSettings
    panel = "pseudo-labels"

    @override
    def read_settings(self, value: Any, sections: Mapping[str, Any]) -> PseudoLabelSettings:
        kind = sections["refine"].kind
        walk = find_walk(kind)
        start: dict[str, Any] = {"crf": None if kind == "none" else "irn"}
        if walk is not None:
            start = {"crf": walk.crf, "threshold": walk.threshold}
        given = read_section(value, "pseudo_labels")
        found = update_settings(PseudoLabelSettings(), start | given, "pseudo_labels")
        if found.threshold is None:
            raise InputError(
                "pseudo_labels.threshold is missing: up to which value a map is background; give a number, or "
                '"best on threshold" and the list data.threshold.'
            )
        if kind == "crf" and resolve_refinement(found.crf) is None:
            raise InputError("pseudo_labels.crf = none leaves refine.kind: crf without one; set refine.kind: none.")
        if "certainty" in given and isinstance(resolve_refinement(found.crf), PARSettings):
            raise InputError("pseudo_labels.certainty has no effect with crf: par; leave it out.")
        check_threshold_part(found.threshold, sections["data"], "pseudo_labels")
        return found

    @override
    def add_stages(self, graph: RecipeGraph) -> None:
        how = graph.recipe.pseudo_labels
        crf = to_plain(resolve_refinement(how.crf))
        settings = {"threshold": how.threshold, "crf": crf, "certainty": how.certainty, **how.describe_size()}
        for part in graph.recipe.evaluate.products_on:
            inputs = {"maps": graph.maps[part]}
            choice = add_choice(graph, how.threshold)
            if choice is not None:
                inputs["choice"] = choice
            graph.labels[part] = graph.add(Stage(f"labels {part}", self.name, settings, inputs, part))
        for part, stage in graph.labels.items():
            add_evaluation(graph, stage, graph.find_scored(part))

    @override
    def prepare(self, stage: Stage, context: StageContext) -> Callable[..., Report]:
        settings: LabelSettings = restore_part(LabelSettings, stage.settings)
        threshold, _ = context.choose_threshold(stage)
        assert threshold is not None
        labels = PseudoLabels(
            Threshold(threshold), restore_refinement(stage.settings["crf"]), settings.certainty, device=context.device
        )
        seeds = SeedFolder(context.get_input(stage, "maps"))
        open_folder = partial(context.prepare_folder, stage, LabelFolder, made_of={"threshold": threshold})
        return prepare_labels(labels, settings, context.view(stage), seeds, open_folder)

    @override
    def run(self, stage: Stage, context: StageContext) -> Outcome:
        threshold, how = context.choose_threshold(stage)
        return super().run(stage, context) | {"figures": {"threshold": threshold, "threshold_chosen": how}}

    @override
    def describe_result(self, stage: Stage, done: Mapping[str, Any] | None) -> dict[str, Any]:
        figures = {} if done is None else done["figures"]
        return super().describe_result(stage, done) | {"certainty": stage.settings["certainty"], **figures}
