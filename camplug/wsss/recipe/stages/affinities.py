"""Stage that trains the network of a random walk, and the section `refine` of a recipe."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch import nn
from typing_extensions import override

from camplug.errors import InputError
from camplug.settings import check_names, prefix_errors, restore_settings, to_plain, update_settings
from camplug.wsss.crf import DenseCRF
from camplug.wsss.pseudo import LabelFolder, WalkedMapSettings
from camplug.wsss.pseudo.refine import resolve_crf
from camplug.wsss.recipe.cache import count_bytes
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.estimate import Cost, count_file_bytes, estimate_training
from camplug.wsss.recipe.graph import RecipeGraph
from camplug.wsss.recipe.sample import Sample, SampleContext, draw_crops, move_batch, save_labels
from camplug.wsss.recipe.sections import NetworkSettings, read_backbone, read_section
from camplug.wsss.recipe.stage import Inputs, Outcome, Stage
from camplug.wsss.recipe.stages.base import TrainingStage, list_training_options
from camplug.wsss.recipe.walks import LearnedWalk, find_learned_walk, find_walk
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.train import Backbone, Crop

OF_HEADS = ("backbone", "layers", "training")
OF_MAPS = ("dtype", "scale", "long_side")


@dataclass(frozen=True)
class RefineSettings(WalkedMapSettings):
    """Settings of the refinement of seeds before they are cut, and of the stored walked maps.

    Attributes:
        kind: "none"; "crf", a dense CRF after the cut; "affinitynet" or "irn", a walk over learned affinities;
            "colour", a walk over similar colours; or a walk of your own, see `camplug.wsss.recipe.register_walk`.
        backbone: network under the heads; None is the classifier.
        layers: layers that the heads read.
        training: settings of the heads' training; None without heads.
        walk: settings of the walk.
    """

    kind: str = "none"
    backbone: NetworkSettings | None = None
    layers: str | tuple[str, ...] = "stages"
    training: Any = None
    walk: Any = None


class AffinitiesStage(TrainingStage):
    """Training of the affinity or boundary network that a random walk uses."""

    name = "affinities"
    inputs: ClassVar[Inputs] = {"seeds": ("maps",), "network": ("network",)}
    output = "network"
    section = "refine"
    settings_type = RefineSettings

    @override
    def read_settings(self, value: Any, sections: Mapping[str, Any]) -> RefineSettings:
        section = read_section(value, "refine")
        kind: Any = section.get("kind") or "none"
        walk = find_walk(kind)
        without_effect = () if isinstance(walk, LearnedWalk) else OF_HEADS if walk is not None else section
        unused = [name for name in section if name != "kind" and name in without_effect]
        if unused:
            raise InputError(f"refine.{unused[0]} has no effect with kind: {kind}; leave it out.")
        if walk is None:
            return restore_settings(RefineSettings, {"kind": kind})
        check_names(section, ("kind", *OF_HEADS, "walk", *OF_MAPS), "refine")
        settings = update_settings(walk.settings(), read_section(section.get("walk"), "refine.walk"), "refine.walk")
        with prefix_errors("refine.walk"):
            walk.make(None, **to_plain(settings))  # checks their ranges
        own = {name: section[name] for name in ("layers", *OF_MAPS) if name in section}
        base = replace(update_settings(RefineSettings(kind=kind), own, "refine"), walk=settings)
        if not isinstance(walk, LearnedWalk):
            return base
        training = update_settings(
            walk.task.settings_type(), read_section(section.get("training"), "refine.training"), "refine.training"
        )
        return replace(base, backbone=read_backbone(section, "refine"), training=training)

    @override
    def add_stages(self, graph: RecipeGraph) -> None:
        refine = graph.recipe.refine
        if refine.training is None:
            return
        network = graph.name_network(refine.backbone)
        settings = {"kind": refine.kind, "layers": to_plain(refine.layers), "training": to_plain(refine.training)}
        inputs = {"seeds": graph.maps["train"], **network.inputs}
        graph.heads = graph.add(
            Stage("affinities", self.name, settings | network.settings, inputs, "train", network.files)
        )

    @override
    def get_file(self, stage: Stage) -> str:
        return _get_walk(stage).file

    @override
    def run(self, stage: Stage, context: StageContext) -> Outcome:
        settings, model, walk = stage.settings, context.load_network(stage), _get_walk(stage)
        data = context.view(stage)
        options = list_training_options(stage, context, model)
        done = walk.train(
            model,
            data,
            SeedFolder(context.get_input(stage, "seeds")),
            context.cache.get_folder(stage),
            restore_settings(walk.task.settings_type, settings["training"]),
            layers=_restore_layers(stage),
            **options | {"preprocess": context.make_preprocess(stage, model)},
        )
        figures = {"losses": done.losses, "learned_from": done.label_settings}
        return {"images": len(data), "broken": done.broken, "figures": figures}

    @override
    def count_epochs(self, stage: Stage) -> int:
        return int(stage.settings["training"]["training"]["epochs"])

    @override
    def load_network(self, stage: Stage, context: StageContext) -> nn.Module:
        walk = _get_walk(stage)
        return walk.load(context.cache.get_folder(stage) / walk.file, context.load_network(stage))

    @override
    def build_network(self, stage: Stage, context: StageContext) -> nn.Module:
        walk = _get_walk(stage)
        backbone = Backbone(context.load_network(stage), _restore_layers(stage))
        training = restore_settings(walk.task.settings_type, stage.settings["training"])
        network: nn.Module = walk.task.network_type(backbone, training.network)
        return network.to(context.device).eval()

    @override
    def estimate(self, stage: Stage, sample: Sample) -> Cost:
        walk = _get_walk(stage)
        training: Any = restore_settings(walk.task.settings_type, stage.settings["training"])
        with sample.open_context() as context:
            network: Any = self.build_network(stage, context)
            seeds = SeedFolder(context.get_input(stage, "seeds"))
            images = context.view(stage)
            photo, maps = np.asarray(images.photo(0)), seeds.load(images.ids[0]).to_full_size()
            crf = resolve_crf(training.crf)
            start = time.perf_counter()
            walk.prepare(network, photo, maps, None if crf is None else DenseCRF(photo, crf))
            once = time.perf_counter() - start
            labels = LabelFolder(context.cache.root / "labels")
            save_labels(context.images, labels)
            size = count_bytes(labels.path)

        def prepare(context: SampleContext, crop: int, count: int) -> Any:
            batch = move_batch(Crop(*draw_crops(count, crop, sample.shown, walk.task.stride)), sample.device)
            network.train()
            return lambda: network.training_step(batch, 0)

        cost = estimate_training(sample, prepare, crop=training.training.crop, batch=training.training.batch)
        cost.fixed, cost.bytes, cost.files = once, size, count_file_bytes(network)
        return cost

    @override
    def describe_training(self, row: Mapping[str, Any]) -> tuple[str, str] | None:
        if not row["learned_from"]:
            return None
        used, given = row["learned_from"], row["settings"]["training"]
        return find_learned_walk(row["settings"]["kind"]).describe_labels(used, given), json.dumps(given["crf"])


def _get_walk(stage: Stage) -> LearnedWalk:
    return find_learned_walk(stage.settings["kind"])


def _restore_layers(stage: Stage) -> str | list[str]:
    layers = stage.settings["layers"]
    return layers if isinstance(layers, str) else list(layers)
