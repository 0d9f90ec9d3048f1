"""Stages of a recipe in the order in which they run, each with its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from camplug.errors import InputError
from camplug.models import FILES
from camplug.settings import to_plain
from camplug.wsss.data import SegmentationData
from camplug.wsss.recipe.sections import NetworkSettings, get_threshold_part
from camplug.wsss.recipe.stage import Data, Stage, get_stage, list_kinds
from camplug.wsss.store.identity import MISSING, make_photograph_table

if TYPE_CHECKING:
    from camplug.wsss.recipe.recipe import Recipe


@dataclass(frozen=True)
class NamedNetwork:
    """Network of a stage: its settings and files, or the stage that trains it.

    Attributes:
        settings, inputs, files: parts of the stage that uses the network, see `Stage`.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    files: tuple[str, ...] = ()


class RecipeGraph:
    """Stages of a recipe; each kind of stage adds its own, see `StageKind.add_stages`.

    Args:
        recipe: the settings.
        data: lists of images that are on disk.

    Attributes:
        stages: stages in the order in which they run.
        pictured: list of which the report shows images.
        network: classifier, or the stage that trains it.
        maps: stages with the latest maps, by list of images.
        heads: stage that trains the network of a random walk.
        labels: stages with pseudo-labels, by list of images.
        segmenter: stage that trains the segmentation network.

    Raises:
        InputError: a threshold is to be chosen on images that are reported, or that have no masks.
    """

    def __init__(self, recipe: Recipe, data: Data) -> None:
        self.recipe, self.data = recipe, data
        self.stages: list[Stage] = []
        self.pictured = "val" if "val" in recipe.evaluate.products_on else self.find_scored("train")
        self.network: NetworkSettings | Stage = NetworkSettings()
        self.maps: dict[str, Stage] = {}
        self.heads: Stage | None = None
        self.labels: dict[str, Stage] = {}
        self.segmenter: Stage | None = None
        for kind in list_kinds():
            kind.add_stages(self)

    def add(self, stage: Stage) -> Stage:
        """Append a stage and return it.

        Raises:
            ValueError: it takes another input than its kind declares.
        """
        allowed = get_stage(stage.kind).inputs
        for role, source in stage.inputs.items():
            output = get_stage(source.kind).output
            if output not in allowed.get(role, ()):
                raise ValueError(f"the stage {stage.name!r} takes {output} of {source.name!r} as {role!r}.")
        self.stages.append(stage)
        return stage

    def name_network(self, network: NetworkSettings | Stage | None = None) -> NamedNetwork:
        """Return how a stage names a network; None stands for the classifier."""
        network = self.network if network is None else network
        if isinstance(network, Stage):
            return NamedNetwork(inputs={"network": network})
        files = (network.checkpoint, network.model if network.model.endswith(FILES) else None)
        return NamedNetwork({"network": to_plain(network)}, files=tuple(file for file in files if file))

    def list_parts(self) -> list[str]:
        """Return the lists on which maps are made: those of the products, and those that thresholds are chosen on."""
        recipe = self.recipe
        self._check_choice()
        parts = list(recipe.evaluate.products_on)
        for value in (recipe.seeds.threshold, recipe.pseudo_labels.threshold):
            part = get_threshold_part(value)
            if part is not None and self.find_holder(part) not in parts:
                parts.append(self.find_holder(part))
        return parts

    def find_scored(self, part: str) -> str:
        """Return the list that the results of another one are scored on."""
        return "score_on" if part == "train" and "score_on" in self.recipe.data else part

    def find_holder(self, part: str) -> str:
        """Return the list among whose results those of another one are: train, if it holds all its images."""
        this, train = self.recipe.data[part], self.recipe.data["train"]
        if (this.data, this.options) != (train.data, train.options):
            return part
        if part in self.data and "train" in self.data:
            return "train" if set(self.data[part].ids) <= set(self.data["train"].ids) else part
        return "train" if part == "score_on" else part

    def _check_choice(self) -> None:
        """Refuse to choose a threshold on images that are reported, unless the recipe declares it."""
        settings = self.recipe.pseudo_labels
        part = get_threshold_part(settings.threshold)
        if part is None or part not in self.data:
            return
        if not self.data[part].has_masks:
            raise InputError(
                f"pseudo_labels.threshold = {settings.threshold!r}: data.{part} has no masks to choose on; give a "
                "number, or a list of images with masks."
            )
        for other in () if settings.optimistic else self._list_reported():
            shared = count_shared_photographs(self.data[part], self.data[other]) if other in self.data else 0
            if shared:
                raise InputError(
                    f"pseudo_labels.threshold = {settings.threshold!r}: {shared} of these images are reported in "
                    f"data.{other}, and figures on masks that a threshold was chosen on are optimistic; choose on "
                    "other images, or say pseudo_labels.optimistic: true."
                )

    def _list_reported(self) -> list[str]:
        """Return the lists that scores are reported of."""
        found = [self.find_scored(part) for part in self.recipe.evaluate.products_on]
        return found + ["val"] * ("val" in self.recipe.data and "val" not in found)


def list_stages(recipe: Recipe, data: Data) -> list[Stage]:
    """Return all stages of a recipe, each after those whose results it uses.

    Args:
        recipe: the settings.
        data: lists of images that are on disk.

    Raises:
        InputError: a threshold is to be chosen on images that are reported, or that have no masks.
    """
    return RecipeGraph(recipe, data).stages


def count_shared_photographs(one: SegmentationData, other: SegmentationData) -> int:
    """Return how many photographs are in both lists, whatever their names."""
    tables = (set(make_photograph_table(data).values()) - {MISSING} for data in (one, other))
    return len(set.intersection(*tables))
