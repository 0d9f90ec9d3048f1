"""Kinds of stages, one per file, in the order in which a recipe runs them."""

from camplug.wsss.recipe.stage import get_stage, list_kinds, register_stage, unregister_stage
from camplug.wsss.recipe.stages.affinities import AffinitiesStage
from camplug.wsss.recipe.stages.base import ImageStage, TrainingStage
from camplug.wsss.recipe.stages.classifier import ClassifierStage
from camplug.wsss.recipe.stages.cut import CutStage
from camplug.wsss.recipe.stages.deeplab import DeepLabStage
from camplug.wsss.recipe.stages.evaluate import EvaluateStage
from camplug.wsss.recipe.stages.labels import LabelsStage
from camplug.wsss.recipe.stages.maps import MapsStage
from camplug.wsss.recipe.stages.predictions import PredictionsStage
from camplug.wsss.recipe.stages.seeds import SeedsStage

for kind in (
    ClassifierStage(),
    SeedsStage(),
    AffinitiesStage(),
    MapsStage(),
    CutStage(),
    LabelsStage(),
    DeepLabStage(),
    PredictionsStage(),
    EvaluateStage(),
):
    register_stage(kind)
del kind

__all__ = ["ImageStage", "TrainingStage", "get_stage", "list_kinds", "register_stage", "unregister_stage"]
