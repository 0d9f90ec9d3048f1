"""Settings of a recipe, section by section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from camplug.wsss.recipe.data import ImageList
from camplug.wsss.recipe.sections import NetworkSettings
from camplug.wsss.recipe.stages.affinities import RefineSettings
from camplug.wsss.recipe.stages.classifier import ClassifierSettings
from camplug.wsss.recipe.stages.deeplab import SegmentationSettings
from camplug.wsss.recipe.stages.evaluate import EvaluationSettings
from camplug.wsss.recipe.stages.labels import PseudoLabelSettings
from camplug.wsss.recipe.stages.predictions import PredictionSettings
from camplug.wsss.recipe.stages.seeds import SeedSection


@dataclass(frozen=True)
class Recipe:
    """Settings of a run from image labels to a segmentation network.

    Attributes:
        name: name of the file.
        title: description in one line.
        data: lists of images: train, and maybe val, threshold and score_on.
        others: settings of the sections of other registered stages, by section.
        text: all sections as they were read, with the changes of the command line.
    """

    name: str
    title: str
    data: dict[str, ImageList]
    classifier: NetworkSettings | ClassifierSettings
    seeds: SeedSection = field(default_factory=SeedSection)
    refine: RefineSettings = field(default_factory=RefineSettings)
    pseudo_labels: PseudoLabelSettings = field(default_factory=PseudoLabelSettings)
    deeplab: SegmentationSettings | None = None
    segment: PredictionSettings = field(default_factory=PredictionSettings)
    evaluate: EvaluationSettings = field(default_factory=EvaluationSettings)
    others: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)
