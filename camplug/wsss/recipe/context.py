"""Context in which a stage runs: its networks, images, folders and thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from camplug.images.preprocess import Preprocess
from camplug.models.preprocess import find_preprocess
from camplug.settings import restore_settings
from camplug.wsss.classifier.checkpoint import read_made_with
from camplug.wsss.data import SegmentationData
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.recipe.data import View, spread_indices
from camplug.wsss.recipe.sections import NetworkSettings, get_threshold_part, load_named_network
from camplug.wsss.recipe.stage import Data, Outcome, Stage, get_stage
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.store.identity import make_file_digest, make_network_settings
from camplug.wsss.store.jobs import Report
from camplug.wsss.train.progress import ProgressCallback

F = TypeVar("F", SeedFolder, LabelFolder)
OPTIMISTIC = "best on these very images, with their masks: optimistic"


@dataclass
class StageContext:
    """Networks, images, folders and thresholds that stages work with.

    Attributes:
        cache: folders of the stages.
        data: lists of images.
        device: device of the networks.
        workers: number of processes that load images in trainings.
        share: (r, n): this is the r-th of n processes.
        watch: receiver of progress messages.
        allow_missing: lists of which any share of the images may be missing in trainings.
    """

    cache: Cache
    data: Data
    device: str = "cpu"
    workers: int = 0
    share: tuple[int, int] = (0, 1)
    watch: ProgressCallback = field(default_factory=ProgressCallback)
    allow_missing: frozenset[str] = frozenset()

    def run(self, stage: Stage) -> Outcome:
        """Make the missing results of a stage; see `StageKind.run`."""
        self.cache.get_folder(stage).mkdir(parents=True, exist_ok=True)
        return get_stage(stage.kind).run(stage, self)

    def view(self, stage: Stage) -> SegmentationData:
        """Return the images of a stage, with their masks only if it scores."""
        assert stage.part is not None
        data, only = self.data[stage.part], stage.settings.get("only")
        return View(data, stage.scores, None if only is None else spread_indices(len(data), only))

    def get_input(self, stage: Stage, role: str) -> Path:
        """Return the folder of an input of a stage."""
        return self.cache.get_folder(stage.inputs[role])

    def find_network_file(self, stage: Stage, role: str) -> Path:
        """Return the file of the trained network that is an input of a stage."""
        source = stage.inputs[role]
        return self.get_input(stage, role) / get_stage(source.kind).get_file(source)

    def load_input(self, stage: Stage, role: str) -> Any:
        """Return the trained network that is an input of a stage."""
        source = stage.inputs[role]
        return get_stage(source.kind).load_network(source, self)

    def load_network(self, stage: Stage) -> nn.Module:
        """Return the network that a stage works with, on its device."""
        if "network" in stage.inputs:
            model: nn.Module = self.load_input(stage, "network")
        else:
            model = load_named_network(stage.settings["network"])
        return model.to(self.device)

    def get_made_with(self, stage: Stage) -> dict[str, Any]:
        """Return how the network of a stage is built, for the files of networks on it."""
        if "network" in stage.inputs:
            return read_made_with(str(self.find_network_file(stage, "network")), None)
        named = restore_settings(NetworkSettings, stage.settings["network"])
        return read_made_with(named.model, named.num_classes)

    def make_preprocess(self, stage: Stage, model: nn.Module, long_side: int | None = None) -> Preprocess:
        """Return the preprocessing of photographs for a stage's network."""
        named = restore_settings(NetworkSettings, stage.settings.get("network", {}))
        return find_preprocess(model).change(named.mean, named.std, long_side)

    def describe_network(self, stage: Stage, model: nn.Module) -> dict[str, Any]:
        """Return what identifies the network of a stage and its preprocessing, for the settings of results."""
        if "network" in stage.inputs:
            return make_network_settings(model, str(self.find_network_file(stage, "network")))
        named = restore_settings(NetworkSettings, stage.settings["network"])
        return make_network_settings(model, named.model, named.num_classes) | {"mean": named.mean, "std": named.std}

    def digest_input(self, stage: Stage, role: str) -> str:
        """Return the digest of the file of a trained network that is an input of a stage."""
        return make_file_digest(self.find_network_file(stage, role), "network")

    def prepare_folder(
        self, stage: Stage, cls: type[F], settings: Mapping[str, Any], made_of: Mapping[str, Any] | None = None
    ) -> F:
        """Return the folder of a stage's results; results of earlier runs made of the same inputs are taken over.

        Args:
            stage: stage that makes them.
            cls: class of the folder.
            settings: settings that the results are made with.
            made_of: further ones.
        """
        folder = cls(self.cache.get_folder(stage))
        classes = list(self.view(stage).classes)
        folder.prepare({"version": get_stage(stage.kind).version, "classes": classes, **(made_of or {}), **settings})
        others = [cls(other) for other in self.cache.list_others(stage)]
        folder.others = [other for other in others if other.get_settings_digest() == folder.get_settings_digest()]
        return folder

    def run_share(self, stage: Stage, make: Callable[..., Report]) -> Outcome:
        """Run `make` on this process's share of a stage's images."""
        count = len(range(self.share[0], len(self.view(stage)), self.share[1]))
        with self.watch.steps(stage.name, count) as step:
            report = make(shard=self.share, step=lambda _: step())
        if report.found:
            self.watch.done(f"{stage.name}: {report.made} made, {report.found} were there")
        return {"images": report.made + report.found, "made": report.made, "broken": report.broken}

    def choose_threshold(self, stage: Stage) -> tuple[float | None, str]:
        """Return the threshold of a stage and how it was chosen, in words; None for one that is to be found."""
        value = stage.settings.get("threshold")
        if value is None:
            return None, OPTIMISTIC
        if not isinstance(value, str):
            return float(value), "fixed, given by the recipe"
        done = self.cache.load_document(stage.inputs["choice"])
        assert done is not None
        figures, part = done["figures"], get_threshold_part(value)
        if part is None:
            return figures["threshold"], f"Otsu's method on data.train ({figures['images']} images), no mask used"
        how = f"best on data.{part} ({figures['images_scored']} images, list {figures['list_sha256']})"
        return float(figures["best_threshold_here"]), how
