"""Stages of a recipe as plain data, and the registry of their kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from camplug.errors import InputError
from camplug.plugins import is_same_definition, load_plugins
from camplug.settings import update_settings
from camplug.wsss.data import SegmentationData
from camplug.wsss.recipe.sections import read_section

if TYPE_CHECKING:
    from torch import nn

    from camplug.wsss.recipe.context import StageContext
    from camplug.wsss.recipe.estimate import Cost
    from camplug.wsss.recipe.graph import RecipeGraph
    from camplug.wsss.recipe.sample import Sample

Data: TypeAlias = Mapping[str, SegmentationData]
Outcome: TypeAlias = dict[str, Any]
Output: TypeAlias = Literal["network", "maps", "labels", "figures"]
Inputs: TypeAlias = Mapping[str, tuple[Output, ...]]


@dataclass(frozen=True, eq=False)
class Stage:
    """Step of a recipe.

    Attributes:
        name: unique name within the recipe.
        kind: name of a registered kind, see `get_stage`.
        settings: plain data, as in JSON.
        inputs: earlier stages whose results are used, by role.
        part: list of images that is gone through.
        files: paths of the weights that are read.
        tuning: settings that change time and memory and no result, so that results are found again with others.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    part: str | None = None
    files: tuple[str, ...] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scores(self) -> bool:
        """True if the stage opens masks."""
        return "masks" in get_stage(self.kind).reads

    @property
    def has_maps(self) -> bool:
        """True if the stage makes maps, which are scored at a threshold."""
        return get_stage(self.kind).output == "maps"


class StageKind(ABC):
    """Base class of the kinds of stages: one subclass per file in `camplug.wsss.recipe.stages`.

    Attributes:
        name: unique name.
        version: number to raise whenever the same settings give other results.
        reads: parts of an image that results depend on: photographs, labels, masks.
        inputs: possible outputs of the stages whose results are used, by role.
        output: content of the stage's folder.
        section: section of a recipe that holds the settings; None if other sections do.
        settings_type: dataclass of that section.
        panel: title of the results in the report's pictures; None shows none.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("photographs",)
    inputs: ClassVar[Inputs] = {}
    output: ClassVar[Output]
    section: ClassVar[str | None] = None
    settings_type: ClassVar[type[Any]]
    panel: ClassVar[str | None] = None

    def read_settings(self, value: Any, sections: Mapping[str, Any]) -> Any:
        """Return the settings of the kind's section.

        Args:
            value: content of the section, as YAML gives it; None if it is missing.
            sections: settings of the sections of earlier kinds by name, and the lists of images as "data".

        Raises:
            InputError: an unknown setting, or a value out of its range.
        """
        assert self.section is not None
        return update_settings(self.settings_type(), read_section(value, self.section), self.section)

    def add_stages(self, graph: RecipeGraph) -> None:  # noqa: B027
        """Add the kind's stages to a recipe; kinds are called in the order in which they are registered."""

    @abstractmethod
    def run(self, stage: Stage, context: StageContext) -> Outcome:
        """Make the missing results of a stage in its folder.

        Returns:
            "images": number of images; "made": results of this process, where processes share the images; "broken":
            names of images with their errors; "figures": further results as plain data.
        """

    @abstractmethod
    def estimate(self, stage: Stage, sample: Sample) -> Cost:
        """Return the cost of a stage, measured on a sample; see `camplug.wsss.recipe.estimate`."""

    def get_file(self, stage: Stage) -> str:
        """Return the name of the file with a stage's trained network; for kinds with the output "network"."""
        raise NotImplementedError

    def load_network(self, stage: Stage, context: StageContext) -> nn.Module:
        """Return the trained network of a stage; for kinds with the output "network"."""
        raise NotImplementedError

    def build_network(self, stage: Stage, context: StageContext) -> nn.Module:
        """Return the untrained network of a stage, for estimates; for kinds with the output "network"."""
        raise NotImplementedError

    def limit_images(self, stage: Stage) -> int | None:
        """Return the largest number of images that a stage goes through, if there is one."""
        return stage.settings.get("only")

    def count_epochs(self, stage: Stage) -> int | None:
        """Return the number of epochs of a training, None for other stages."""
        return None

    def count_repeats(self, stage: Stage, ids: Sequence[str] | None) -> int:
        """Return how many images a training draws in an epoch beyond one per image.

        Args:
            stage: the stage.
            ids: names of its images; None if they are not on disk.
        """
        return 0

    def title_panel(self, stage: Stage) -> str:
        """Return the title of a stage's results in the report's pictures."""
        return str(self.panel)

    def describe_labels(self, stage: Stage) -> str:
        """Return the origin of the image labels behind a stage's results, for the report."""
        return "image labels given"

    def describe_result(self, stage: Stage, done: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what the report tells beside the scores of a stage's results.

        Args:
            stage: stage whose results are scored.
            done: document of the finished stage.
        """
        return {"crf": stage.settings.get("crf")}

    def describe_training(self, row: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the thresholds and the dense CRF of the labels that a training made for itself, in words.

        Args:
            row: stage in the report, with "settings" and "learned_from".
        """
        return None


_KINDS: dict[str, StageKind] = {}


def register_stage(kind: StageKind, after: str | None = None) -> None:
    """Make a kind of stage available to recipes; the same class of the same module may be registered again.

    Args:
        kind: instance of the kind.
        after: name of the kind whose stages come before; by default the last one.

    Raises:
        InputError: the name or the section is taken, or there is no kind `after`.
    """
    old = _KINDS.get(kind.name)
    if old is not None and is_same_definition(type(old), type(kind)):
        _KINDS[kind.name] = kind
        return
    taken = [k.name for k in _KINDS.values() if k.name == kind.name or (k.section and k.section == kind.section)]
    if taken:
        raise InputError(f"a stage {kind.name!r} cannot be registered: {taken[0]!r} has its name or section.")
    if after is not None:
        get_stage(after)
    kinds = list(_KINDS.values())
    place = len(kinds) if after is None else 1 + list(_KINDS).index(after)
    kinds.insert(place, kind)
    _KINDS.clear()
    _KINDS.update({k.name: k for k in kinds})


def unregister_stage(name: str) -> None:
    """Remove a registered kind of stage."""
    _KINDS.pop(name, None)


def get_stage(name: str) -> StageKind:
    """Return a registered kind of stage.

    Raises:
        InputError: there is none of this name.
    """
    if name not in _KINDS:
        raise InputError(f"there is no stage {name!r}; registered are {', '.join(_KINDS)}.")
    return _KINDS[name]


def list_kinds() -> list[StageKind]:
    """Return all registered kinds of stages, in the order in which a recipe runs them."""
    load_plugins()
    return list(_KINDS.values())
