"""Stage that segments images with the trained network, and the section `segment` of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from typing_extensions import override

from camplug.errors import InputError
from camplug.settings import restore_part, to_plain
from camplug.wsss.crf import CRFSettings, PARSettings
from camplug.wsss.crf.settings import resolve_refinement
from camplug.wsss.data import SegmentationData
from camplug.wsss.deeplab import Segmenter, SegmenterSettings, prepare_predictions
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.graph import NamedNetwork, RecipeGraph
from camplug.wsss.recipe.stage import Inputs, Stage
from camplug.wsss.recipe.stages.base import ImageStage, restore_refinement
from camplug.wsss.recipe.stages.evaluate import add_evaluation
from camplug.wsss.seeds.predicted_labels import PROBABILITY, check_probability, predict_labels
from camplug.wsss.store.jobs import Report


@dataclass(frozen=True)
class PredictionSettings(SegmenterSettings):
    """Section of the predictions; with a refinement or predicted labels they are made and scored without them, too.

    Args:
        crf: name or settings of a dense CRF, "par" for pixel-adaptive refinement, or None.
        labels: "predicted" for only the classes that the classifier finds in a photograph, "none" for all classes.
        probability: probability above which a class counts as found, beside the most probable one.
    """

    crf: CRFSettings | PARSettings | str | None = None
    labels: Literal["none", "predicted"] = "none"
    probability: float = PROBABILITY

    def __post_init__(self) -> None:
        resolve_refinement(self.crf)
        check_probability(self.probability)
        if self.labels not in ("none", "predicted"):
            raise InputError(f"labels={self.labels!r}; allowed are none, predicted.")
        if self.labels == "none" and self.probability != PROBABILITY:
            raise InputError("probability has no effect without labels: predicted; add that, or leave it out.")
        if not self.scales or not all(scale > 0 for scale in self.scales):
            raise InputError(f"scales={self.scales}; give at least one number, each above 0.")


class PredictionsStage(ImageStage):
    """Predictions of the segmentation network, without image labels or with those that the classifier predicts."""

    name = "predictions"
    version = 2
    inputs: ClassVar[Inputs] = {"deeplab": ("network",), "network": ("network",)}
    output = "labels"
    section = "segment"
    settings_type = PredictionSettings
    panel = "prediction"

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
        if recipe.segment.labels == "predicted":
            named = graph.name_network()
            settings = {"crf": crf, "labels": "predicted", "probability": recipe.segment.probability}
            stage = self._add(graph, graph.segmenter, "val", "labels predicted val", named, **settings)
            add_evaluation(graph, stage, "val")

    def _add(
        self,
        graph: RecipeGraph,
        segmenter: Stage,
        part: str,
        name: str,
        classifier: NamedNetwork | None = None,
        **settings: Any,
    ) -> Stage:
        classifier = NamedNetwork() if classifier is None else classifier
        inputs = {"deeplab": segmenter, **classifier.inputs}
        own = {k: v for k, v in to_plain(graph.recipe.segment).items() if k not in ("labels", "probability")}
        settings = own | {"crf": None} | classifier.settings | settings
        return graph.add(Stage(f"predictions {name}", self.name, settings, inputs, part, classifier.files))

    @override
    def prepare(self, stage: Stage, context: StageContext) -> Callable[..., Report]:
        settings = restore_part(SegmenterSettings, stage.settings)
        network = context.load_input(stage, "deeplab").to(context.device)
        segmenter = Segmenter(network, **vars(settings), crf=restore_refinement(stage.settings["crf"]))
        open_folder = partial(context.prepare_folder, stage, LabelFolder)
        weights, data, labels = context.digest_input(stage, "deeplab"), context.view(stage), None
        if "labels" in stage.settings:
            data, labels = _predict_labels(stage, context, data)
        return prepare_predictions(segmenter, data, open_folder, weights=weights, labels=labels)

    @override
    def describe_labels(self, stage: Stage) -> str:
        return f"predicted by the {'classifier' if 'labels' in stage.settings else 'network'}"

    @override
    def title_panel(self, stage: Stage) -> str:
        crf = restore_refinement(stage.settings["crf"])
        name = "PAR" if isinstance(crf, PARSettings) else "CRF"
        title = f"{self.panel}, labels predicted" if "labels" in stage.settings else str(self.panel)
        return title if crf is None else f"{title} with {name}"


def _predict_labels(
    stage: Stage, context: StageContext, data: SegmentationData
) -> tuple[SegmentationData, dict[str, Any]]:
    """Return the images with the labels that the classifier predicts, and what identifies these labels."""
    model = context.load_network(stage)
    made_with, preprocess = context.describe_network(stage, model), context.make_preprocess(stage, model)
    return predict_labels(data, model, made_with, stage.settings["probability"], preprocess)
