"""Recipes: the whole road from image-level labels to a segmentation network, resumable, with one report.

What is here needs lightning.
"""

from camplug.wsss.recipe.plan import Row, plan_of
from camplug.wsss.recipe.read import read_recipe, recipe_of, shipped
from camplug.wsss.recipe.recipe_settings import Recipe
from camplug.wsss.recipe.report import write_report
from camplug.wsss.recipe.run import run_recipe
from camplug.wsss.recipe.stages import Stage, stages_of

__all__ = [
    "Recipe",
    "Row",
    "Stage",
    "plan_of",
    "read_recipe",
    "recipe_of",
    "run_recipe",
    "shipped",
    "stages_of",
    "write_report",
]
