"""Recipes: runs from image-level labels to a segmentation network from one file, resumable, with one report.

This package needs lightning.
"""

from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.graph import RecipeGraph, list_stages
from camplug.wsss.recipe.plan import Row, plan_recipe
from camplug.wsss.recipe.read import list_recipes, make_recipe, read_recipe
from camplug.wsss.recipe.recipe import Recipe
from camplug.wsss.recipe.report import write_report
from camplug.wsss.recipe.run import run_recipe
from camplug.wsss.recipe.stage import Stage, StageKind
from camplug.wsss.recipe.stages import ImageStage, TrainingStage, get_stage, register_stage
from camplug.wsss.recipe.walks import LearnedWalk, Walk, register_walk

__all__ = [
    "ImageStage",
    "LearnedWalk",
    "Recipe",
    "RecipeGraph",
    "Row",
    "Stage",
    "StageContext",
    "StageKind",
    "TrainingStage",
    "Walk",
    "get_stage",
    "list_recipes",
    "list_stages",
    "make_recipe",
    "plan_recipe",
    "read_recipe",
    "register_stage",
    "register_walk",
    "run_recipe",
    "write_report",
]
