"""Stage that trains the segmentation network, and the section `deeplab` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn
from typing_extensions import override

from camplug.errors import InputError
from camplug.settings import check_names, list_settings, restore_settings, to_plain, update_settings
from camplug.wsss.deeplab import DeepLabSettings, build_deeplab, load_deeplab, multiscale_loss, train_deeplab
from camplug.wsss.deeplab.checkpoint import DEEPLAB_FILE
from camplug.wsss.deeplab.corrected import REPEAT, check_repeat, digest_corrected, list_corrected
from camplug.wsss.deeplab.lightning_module import DeepLabTraining
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.estimate import Cost, count_file_bytes, estimate_training
from camplug.wsss.recipe.graph import RecipeGraph
from camplug.wsss.recipe.sample import Sample, SampleContext, draw_crops
from camplug.wsss.recipe.sections import NetworkSettings, read_backbone, read_section
from camplug.wsss.recipe.stage import Inputs, Outcome, Stage
from camplug.wsss.recipe.stages.base import TrainingStage, list_training_options

OWN = ("backbone", "saliency", "corrected", "corrected_repeat")  # settings beside those of the training


@dataclass(frozen=True)
class SegmentationSettings:
    """Settings of the segmentation network and its training.

    Attributes:
        training: see `camplug.wsss.deeplab.DeepLabSettings`.
        backbone: network under it; None is the classifier.
        saliency: a folder, the file of a network, "contrast" or "spectral"; None for none.
        corrected: folder of corrected label pictures; None for none.
        corrected_repeat: draws of a corrected image per epoch.
    """

    training: DeepLabSettings
    backbone: NetworkSettings | None = None
    saliency: str | None = None
    corrected: str | None = None
    corrected_repeat: int = REPEAT

    def __post_init__(self) -> None:
        check_repeat(self.corrected_repeat)


class DeepLabStage(TrainingStage):
    """Training of the segmentation network on pseudo-labels."""

    name = "deeplab"
    inputs: ClassVar[Inputs] = {"labels": ("labels",), "network": ("network",)}
    output = "network"
    section = "deeplab"
    settings_type = SegmentationSettings
    file = DEEPLAB_FILE.file

    @override
    def read_settings(self, value: Any, sections: Mapping[str, Any]) -> SegmentationSettings | None:
        if value in (None, "none", False):
            return None
        section = read_section(value, "deeplab")
        training = DeepLabSettings()
        own = {k: v for k, v in section.items() if k not in OWN}
        check_names(section, [*OWN, *list_settings(training)], "deeplab")
        saliency = section.get("saliency")
        saliency = None if saliency in (None, "none") else str(saliency)
        training = update_settings(training, own, "deeplab")
        if (training.network.refinement > 0) != (saliency is not None):
            raise InputError(
                "deeplab.refinement and deeplab.saliency go together: give both (saliency: contrast, spectral, a "
                "folder or the file of a network) or none."
            )
        found = SegmentationSettings(training, read_backbone(section, "deeplab"), saliency)
        given = {k: v for k, v in section.items() if k in ("corrected", "corrected_repeat")}
        return update_settings(found, given, "deeplab")

    @override
    def add_stages(self, graph: RecipeGraph) -> None:
        how = graph.recipe.deeplab
        if how is None:
            return
        network = graph.name_network(how.backbone)
        settings = {"training": to_plain(how.training), "saliency": how.saliency} | network.settings
        if how.corrected is not None:
            digest = digest_corrected(how.corrected, graph.data["train"].ids if "train" in graph.data else None)
            settings["corrected"] = {"repeat": how.corrected_repeat, "digest": digest, "folder": how.corrected}
        inputs = {"labels": graph.labels["train"], **network.inputs}
        graph.segmenter = graph.add(Stage("deeplab", self.name, settings, inputs, "train", network.files))

    @override
    def run(self, stage: Stage, context: StageContext) -> Outcome:
        model, data = context.load_network(stage), context.view(stage)
        corrected = stage.settings.get("corrected") or {"folder": None, "repeat": REPEAT}
        done = train_deeplab(
            model,
            data,
            context.get_input(stage, "labels"),
            context.cache.get_folder(stage),
            _restore_settings(stage),
            saliency=stage.settings["saliency"],
            corrected=corrected["folder"],
            corrected_repeat=corrected["repeat"],
            **list_training_options(stage, context, model),
        )
        return {"images": len(data), "broken": done.broken, "figures": {"losses": done.losses}}

    @override
    def count_epochs(self, stage: Stage) -> int:
        return _restore_settings(stage).training.epochs

    @override
    def count_repeats(self, stage: Stage, ids: Sequence[str] | None) -> int:
        if (corrected := stage.settings.get("corrected")) is None:
            return 0
        names, repeat = list_corrected(corrected["folder"]), int(corrected["repeat"])
        return (repeat - 1) * len(names if ids is None else names & {*ids})

    @override
    def load_network(self, stage: Stage, context: StageContext) -> nn.Module:
        return load_deeplab(context.cache.get_folder(stage) / self.file)

    @override
    def build_network(self, stage: Stage, context: StageContext) -> nn.Module:
        classes = context.view(stage).classes
        return build_deeplab(context.load_network(stage), classes, _restore_settings(stage).network).to(context.device)

    @override
    def estimate(self, stage: Stage, sample: Sample) -> Cost:
        settings, sizes = _restore_settings(stage), []

        def prepare(context: SampleContext, crop: int, count: int) -> Any:
            network: Any = self.build_network(stage, context)
            sizes.append(count_file_bytes(context.load_network(stage)))
            module = DeepLabTraining(network, settings.network).to(context.device).train()
            x, y = (part.to(context.device) for part in draw_crops(count, crop, sample.shown))
            balanced = settings.network.loss == "balanced"
            return lambda: multiscale_loss(module.logits(x), y, balanced=balanced)

        cost = estimate_training(sample, prepare, crop=settings.training.crop, batch=settings.training.batch)
        cost.files = sizes[0]
        return cost


def _restore_settings(stage: Stage) -> DeepLabSettings:
    return restore_settings(DeepLabSettings, stage.settings["training"])
