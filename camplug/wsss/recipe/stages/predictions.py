"""Stage that segments images with the trained network, and the section `segment` of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from typing_extensions import override

from camplug.errors import InputError
from camplug.settings import restore_part, to_plain
from camplug.wsss.crf import CRFSettings, PARSettings
from camplug.wsss.crf.settings import resolve_refinement
from camplug.wsss.deeplab import Segmenter, SegmenterSettings, prepare_predictions
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.graph import RecipeGraph
from camplug.wsss.recipe.stage import Inputs, Stage
from camplug.wsss.recipe.stages.base import ImageStage, restore_refinement
from camplug.wsss.recipe.stages.evaluate import add_evaluation
from camplug.wsss.store.jobs import Report


@dataclass(frozen=True)
class PredictionSettings(SegmenterSettings):
    """Section of the predictions; with a refinement they are made and scored without it, too.

    Args:
        crf: name or settings of a dense CRF, "par" for pixel-adaptive refinement, or None.
    """

    crf: CRFSettings | PARSettings | str | None = None

    def __post_init__(self) -> None:
        resolve_refinement(self.crf)
        if not self.scales or not all(scale > 0 for scale in self.scales):
            raise InputError(f"scales={self.scales}; give at least one number, each above 0.")


class PredictionsStage(ImageStage):
    """Predictions of the segmentation network, without image labels."""

    name = "predictions"
    version = 2
    inputs: ClassVar[Inputs] = {"deeplab": ("network",)}
    output = "labels"
    section = "segment"
    settings_type = PredictionSettings
    panel = "prediction"
    labels_used = "predicted by the network"

    @override
    def add_stages(self, graph: RecipeGraph) -> None:
        recipe = graph.recipe
        if graph.segmenter is None:
            return
        pictures = recipe.evaluate.pictures
        if graph.pictured != "val" and pictures:
            self._add(graph, graph.segmenter, graph.pictured, "pictures", only=pictures)
        if "val" not in recipe.data:
            return
        add_evaluation(graph, self._add(graph, graph.segmenter, "val", "val"), "val")
        crf = to_plain(resolve_refinement(recipe.segment.crf))
        if crf is not None:
            add_evaluation(graph, self._add(graph, graph.segmenter, "val", "crf val", crf=crf), "val")

    def _add(self, graph: RecipeGraph, segmenter: Stage, part: str, name: str, **settings: Any) -> Stage:
        settings = to_plain(graph.recipe.segment) | {"crf": None} | settings
        return graph.add(Stage(f"predictions {name}", self.name, settings, {"deeplab": segmenter}, part))

    @override
    def prepare(self, stage: Stage, context: StageContext) -> Callable[..., Report]:
        settings = restore_part(SegmenterSettings, stage.settings)
        network = context.load_input(stage, "deeplab").to(context.device)
        segmenter = Segmenter(network, **vars(settings), crf=restore_refinement(stage.settings["crf"]))
        open_folder = partial(context.prepare_folder, stage, LabelFolder)
        weights = context.digest_input(stage, "deeplab")
        return prepare_predictions(segmenter, context.view(stage), open_folder, weights=weights)

    @override
    def title_panel(self, stage: Stage) -> str:
        crf = restore_refinement(stage.settings["crf"])
        name = "PAR" if isinstance(crf, PARSettings) else "CRF"
        return str(self.panel) if crf is None else f"{self.panel} with {name}"
