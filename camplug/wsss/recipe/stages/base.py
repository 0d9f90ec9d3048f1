"""Base classes of stages that make one result per image, and of stages that train a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import nn
from typing_extensions import override

from camplug.settings import restore_settings
from camplug.wsss.crf import CRFSettings, PARSettings, Refinement
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.estimate import Cost, estimate_images
from camplug.wsss.recipe.sample import Sample
from camplug.wsss.recipe.stage import Outcome, Stage, StageKind
from camplug.wsss.store.jobs import Report


class ImageStage(StageKind):
    """Base class of stages that make one result per image, shared by all processes.

    Attributes:
        cost_note: remark on the estimated cost.
    """

    cost_note: ClassVar[str | None] = None

    @abstractmethod
    def prepare(self, stage: Stage, context: StageContext) -> Callable[..., Report]:
        """Load what a stage needs, and return the function that makes the results of a share of its images.

        Args:
            stage: the stage.
            context: its networks, images and folders.

        Returns:
            A function of `shard` and `step`, see `camplug.wsss.store.jobs.for_each`.
        """

    @override
    def run(self, stage: Stage, context: StageContext) -> Outcome:
        return context.run_share(stage, self.prepare(stage, context))

    @override
    def estimate(self, stage: Stage, sample: Sample) -> Cost:
        return self.add_note(estimate_images(stage, sample, self.prepare))

    def add_note(self, cost: Cost) -> Cost:
        """Return a cost with the kind's remark."""
        cost.scaled += [] if self.cost_note is None else [self.cost_note]
        return cost


class TrainingStage(StageKind):
    """Base class of stages that train a network in all processes together.

    Attributes:
        file: name of the trained network's file.
    """

    file: ClassVar[str]

    @override
    def get_file(self, stage: Stage) -> str:
        return self.file


def list_training_options(stage: Stage, context: StageContext, model: nn.Module) -> dict[str, Any]:
    """Return the options that all trainings of a recipe have in common."""
    return {
        "preprocess": context.make_preprocess(stage, model) if "network" in stage.settings else None,
        "workers": context.workers,
        "allow_missing": stage.part in context.allow_missing,
        "made_with": context.get_made_with(stage),
        "watch": context.watch,
    }


def restore_refinement(settings: Any) -> Refinement | None:
    """Return the settings of a dense CRF or of pixel-adaptive refinement from plain data."""
    if settings is None:
        return None
    if "dilations" in settings:
        return restore_settings(PARSettings, settings)
    return restore_settings(CRFSettings, settings)
