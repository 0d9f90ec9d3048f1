"""Stage that trains a classifier, and the section `classifier` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import nn
from torch.utils.data import default_collate
from typing_extensions import override

from camplug.errors import InputError
from camplug.models import load_model
from camplug.settings import check_names, list_settings, prefix_errors, restore_settings, to_plain, update_settings
from camplug.wsss.atm.method import ATM
from camplug.wsss.classifier.checkpoint import CLASSIFIER_FILE
from camplug.wsss.classifier.crops import ClassifierCrops
from camplug.wsss.classifier.method import Method, get_training, register_training
from camplug.wsss.classifier.network import build_classifier
from camplug.wsss.classifier.settings import LearningSettings, SpanSettings, get_preset
from camplug.wsss.classifier.train import train_classifier
from camplug.wsss.fpr.method import FPR
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.data import View
from camplug.wsss.recipe.estimate import FEW, Cost, count_file_bytes, estimate_training
from camplug.wsss.recipe.graph import RecipeGraph
from camplug.wsss.recipe.sample import Sample, SampleContext, move_batch
from camplug.wsss.recipe.sections import NetworkSettings, read_section
from camplug.wsss.recipe.stage import Inputs, Outcome, Stage
from camplug.wsss.recipe.stages.base import TrainingStage, list_training_options
from camplug.wsss.rpnet.method import RPNet

for _method in (ATM, RPNet, FPR):
    register_training(_method)
OPTIONS = ("method", "preset", "start", "head", "output_stride", "keep", "validation")
CHOICES = {"head": ("keep", "new"), "keep": ("last", "best")}
EXAMPLE = "for instance classifier: {given: {model: demo}}"


@dataclass(frozen=True)
class ClassifierSettings:
    """Settings of a classifier that is trained.

    Attributes:
        method: training method with its options.
        learning, span: see `camplug.wsss.classifier`.
        start: network to begin with, or another classifier to train first.
        head: "keep" or "new"; None keeps a head that has the data's classes.
        output_stride: output stride of the classifier.
        keep: "last", or "best" by the image labels of `validation`.
        validation: list of the section data.
    """

    method: Method
    learning: LearningSettings
    span: SpanSettings
    start: NetworkSettings | ClassifierSettings
    head: Literal["keep", "new"] | None = None
    output_stride: int | None = None
    keep: Literal["last", "best"] = "last"
    validation: str | None = None


class ClassifierStage(TrainingStage):
    """Training of a classifier on image labels."""

    name = "classifier"
    reads = ("photographs", "labels")
    inputs: ClassVar[Inputs] = {"network": ("network",)}
    output = "network"
    section = "classifier"
    file = CLASSIFIER_FILE.file

    @override
    def read_settings(self, value: Any, sections: Mapping[str, Any]) -> NetworkSettings | ClassifierSettings:
        return _read_classifier(read_section(value, "classifier", EXAMPLE), "classifier", sections["data"])

    @override
    def add_stages(self, graph: RecipeGraph) -> None:
        graph.network = self._add_classifier(graph, graph.recipe.classifier, "classifier")

    def _add_classifier(
        self, graph: RecipeGraph, given: NetworkSettings | ClassifierSettings, name: str
    ) -> NetworkSettings | Stage:
        if isinstance(given, NetworkSettings):
            return given
        start = graph.name_network(self._add_classifier(graph, given.start, f"{name} start"))
        settings = {
            "method": {"name": given.method.name, **to_plain(given.method)},
            "learning": to_plain(given.learning),
            "span": to_plain(given.span),
            "head": given.head,
            "output_stride": given.output_stride,
            "keep": given.keep,
            "validation": given.validation,
        }
        return graph.add(Stage(name, self.name, settings | start.settings, start.inputs, "train", start.files))

    @override
    def run(self, stage: Stage, context: StageContext) -> Outcome:
        settings, model = stage.settings, context.load_network(stage)
        data, validation = context.view(stage), settings["validation"]
        done = train_classifier(
            model,
            data,
            context.cache.get_folder(stage),
            method=_restore_method(stage),
            learning=restore_settings(LearningSettings, settings["learning"]),
            span=restore_settings(SpanSettings, settings["span"]),
            validation=None if validation is None else View(context.data[validation], masks=False),
            keep=settings["keep"],
            output_stride=settings["output_stride"],
            keep_head=None if settings["head"] is None else settings["head"] == "keep",
            **list_training_options(stage, context, model),
        )
        return {"images": len(data), "broken": done.broken, "figures": {"losses": done.losses}}

    @override
    def count_epochs(self, stage: Stage) -> int:
        return int(stage.settings["span"]["epochs"])

    @override
    def load_network(self, stage: Stage, context: StageContext) -> nn.Module:
        return load_model(str(context.cache.get_folder(stage) / self.file))

    @override
    def build_network(self, stage: Stage, context: StageContext) -> nn.Module:
        return build_classifier(
            context.load_network(stage),
            context.view(stage).classes,
            neck=_restore_method(stage).get_neck_settings(),
            output_stride=stage.settings["output_stride"],
            keep_head=False,
        ).to(context.device)

    @override
    def estimate(self, stage: Stage, sample: Sample) -> Cost:
        method, span = _restore_method(stage), restore_settings(SpanSettings, stage.settings["span"])
        learning = restore_settings(LearningSettings, stage.settings["learning"])
        one = Method() if isinstance(method, FPR) else method  # prototypes need a trained classifier
        sizes = []

        def prepare(context: SampleContext, crop: int, count: int) -> Any:
            network: Any = self.build_network(stage, context)
            sizes.append(count_file_bytes(context.load_network(stage)))
            pictures = ClassifierCrops(context.view(stage), crop=crop, sides=span.sides, mean=network.preprocess.mean)
            items = one.make_items(pictures)
            module = one.make_module(network, learning, pictures).to(context.device).train()
            batch = default_collate([items[0, i % len(items)] for i in range(max(1, count // one.group))])
            return lambda: module.training_step(move_batch(batch, context.device), 0)

        cost = estimate_training(sample, prepare, crop=span.crop, batch=span.batch, count=max(FEW, one.group))
        cost.files = sizes[0]
        if isinstance(method, FPR) and method.needs_prototypes:
            passes = sum(s * s for s in method.pass_scales) * (2 if method.pass_flip else 1)
            cost.seconds *= 1 + passes / 3
            cost.scaled.append("the pass for prototypes from the step")
        return cost


def _restore_method(stage: Stage) -> Method:
    """Return the training method of a stage."""
    options = {k: v for k, v in stage.settings["method"].items() if k != "name"}
    return restore_settings(get_training(stage.settings["method"]["name"]), options)


def _read_classifier(
    section: dict[str, Any], where: str, parts: Mapping[str, Any]
) -> NetworkSettings | ClassifierSettings:
    check_names(section, ("given", "train"), where)
    if len(section) != 1:
        raise InputError(f"{where}: give either given (a trained one) or train (how to train it).")
    if "given" in section:
        return update_settings(NetworkSettings(), read_section(section["given"], f"{where}.given"), f"{where}.given")
    return _read_training(read_section(section["train"], f"{where}.train"), f"{where}.train", parts)


def _read_training(section: dict[str, Any], where: str, parts: Mapping[str, Any]) -> ClassifierSettings:
    name = section.get("method", "classifier")
    with prefix_errors(f"{where}.method"):
        method = get_training(str(name))
    with prefix_errors(where):
        learning, span = get_preset(str(section.get("preset", "irn")))
    groups: list[Any] = [method(), learning, span]
    network = list_settings(NetworkSettings())
    check_names(section, [*OPTIONS, *network, *(n for group in groups for n in list_settings(group))], where)
    start: NetworkSettings | ClassifierSettings
    if "start" in section:
        unused = [n for n in network if n in section]
        if unused:
            raise InputError(f"{where}.{unused[0]} has no effect beside start, which names the network; leave it out.")
        start = _read_classifier(read_section(section["start"], f"{where}.start"), f"{where}.start", parts)
    else:
        start = update_settings(NetworkSettings(), {k: v for k, v in section.items() if k in network}, where)
    if method.needs_trained and "start" not in section:
        raise InputError(f"{where}: {method.name} goes on with a trained classifier; describe it in {where}.start.")
    made = [update_settings(g, {k: v for k, v in section.items() if k in list_settings(g)}, where) for g in groups]
    own = {k: v for k, v in section.items() if k in ("head", "output_stride", "keep", "validation")}
    for key, allowed in CHOICES.items():
        if own.get(key) is not None and own[key] not in allowed:
            raise InputError(f"{where}.{key} = {own[key]!r}; allowed are {', '.join(allowed)}.")
    found = replace(ClassifierSettings(made[0], made[1], made[2], start), **own)
    if found.validation is not None and found.validation not in parts:
        raise InputError(f"{where}.validation = {found.validation!r}: the section data has {', '.join(parts)}.")
    if found.keep == "best" and found.validation is None:
        raise InputError(f"{where}.keep = best needs validation, a list of the section data.")
    return found
