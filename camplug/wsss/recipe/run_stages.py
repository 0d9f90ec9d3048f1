"""What the stages do: each makes its products in its folder, goes on where it was stopped, and tells what it made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn

import camplug
from camplug.explain.preprocess import Preprocess
from camplug.models import load_model
from camplug.settings import restore_settings
from camplug.wsss.affinitynet import AffinityNetSettings, train_affinitynet
from camplug.wsss.affinitynet.checkpoint import load_affinitynet
from camplug.wsss.classifier.checkpoint import read_made_with
from camplug.wsss.classifier.network import get_preprocess
from camplug.wsss.classifier.settings import LearningSettings, SpanSettings
from camplug.wsss.classifier.train import FILE as CLASSIFIER
from camplug.wsss.classifier.train import train_classifier
from camplug.wsss.crf import CRFSettings
from camplug.wsss.data import SegmentationData
from camplug.wsss.deeplab import DeepLabSettings, Segmenter, load_deeplab, make_predictions, train_deeplab
from camplug.wsss.irn import IRNSettings, train_irn
from camplug.wsss.irn.checkpoint import load_irn
from camplug.wsss.pseudo import (
    AffinityNetWalk,
    IRNWalk,
    LabelFolder,
    PseudoLabels,
    Threshold,
    make_labels,
    make_walked_seeds,
)
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.recipe.data import View, evenly
from camplug.wsss.recipe.recipe_settings import METHODS, NetworkSettings
from camplug.wsss.recipe.scoring import choice_of, scored
from camplug.wsss.recipe.stages import VERSIONS, Data, Stage
from camplug.wsss.seeds import SeedFolder, compute_otsu_of_seeds, make_seeds
from camplug.wsss.store.identity import make_file_digest, make_network_settings
from camplug.wsss.store.jobs import Report
from camplug.wsss.train.progress import ProgressCallback

DEEPLAB = "deeplab.pt"
HEADS = {"irn": "irn.pt", "affinitynet": "affinitynet.pt"}
F = TypeVar("F", SeedFolder, LabelFolder)
Told: TypeAlias = dict[str, Any]


@dataclass
class StageContext:
    """What stages work with.

    Attributes:
        cache: their folders.
        data: the lists of images.
        device: that networks run on.
        workers: processes that load images in trainings.
        share: (r, n): this is the r-th of n processes.
        watch: is told how it goes.
        allow_missing: the lists of which any share of the images may be missing in trainings.
    """

    cache: Cache
    data: Data
    device: str = "cpu"
    workers: int = 0
    share: tuple[int, int] = (0, 1)
    watch: ProgressCallback = field(default_factory=ProgressCallback)
    allow_missing: frozenset[str] = frozenset()

    def run(self, stage: Stage) -> Told:
        """Make what is missing of a stage's products; tells how much there was to do, and what came out."""
        self.cache.folder(stage).mkdir(parents=True, exist_ok=True)
        return RUN[stage.kind](stage, self)

    def view(self, stage: Stage) -> SegmentationData:
        """The images of a stage; their masks, too, where it scores."""
        assert stage.part is not None
        data, only = self.data[stage.part], stage.settings.get("only")
        return View(data, stage.scores, None if only is None else evenly(len(data), only))

    def of(self, stage: Stage, role: str) -> Path:
        """The folder of what a stage takes something from."""
        return self.cache.folder(stage.inputs[role])

    def network(self, stage: Stage) -> nn.Module:
        """The network that a stage works with, on its device."""
        if "network" in stage.inputs:
            return load_model(str(self.of(stage, "network") / CLASSIFIER)).to(self.device)
        named = restore_settings(NetworkSettings, stage.settings["network"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # weights that begin at random are the same in every run
            found = load_model(
                named.model, checkpoint=named.checkpoint, num_classes=named.num_classes, pretrained=named.pretrained
            )
        return found.to(self.device)

    def made_with(self, stage: Stage) -> dict[str, Any]:
        """How that network is built, for the files of networks on it."""
        named = restore_settings(NetworkSettings, stage.settings["network"]) if "network" in stage.settings else None
        if named is None:
            return read_made_with(str(self.of(stage, "network") / CLASSIFIER), None)
        return read_made_with(named.model, named.num_classes)

    def reads(self, stage: Stage, model: nn.Module, long_side: int | None = None) -> Preprocess:
        """How photographs are read for a stage's network."""
        named = restore_settings(NetworkSettings, stage.settings.get("network", {}))
        base = get_preprocess(model)
        return replace(
            base,
            mean=base.mean if named.mean is None else _per_colour(named.mean),
            std=base.std if named.std is None else _per_colour(named.std),
            long_side=long_side,
        )

    def told_of(self, stage: Stage, model: nn.Module) -> dict[str, Any]:
        """Return what tells that network from others, and how it reads photographs, for the settings of results."""
        if "network" in stage.inputs:
            return make_network_settings(model, str(self.of(stage, "network") / CLASSIFIER))
        named = restore_settings(NetworkSettings, stage.settings["network"])
        return make_network_settings(model, named.model, named.num_classes) | {"mean": named.mean, "std": named.std}

    def into(self, stage: Stage, folder: F, settings: Mapping[str, Any]) -> F:
        """Return the folder of a stage's results, which takes over from earlier ones what was made of the same.

        Args:
            stage: makes them.
            folder: its own.
            settings: that they are made with.
        """
        classes = list(self.view(stage).classes)
        folder.prepare({"version": VERSIONS[stage.kind], "classes": classes, **settings})
        others = [type(folder)(other) for other in self.cache.others(stage)]
        folder.others = [other for other in others if other.get_settings_digest() == folder.get_settings_digest()]
        return folder

    def each(self, stage: Stage, make: Callable[..., Report]) -> Told:
        """What `make` makes of this process's share of the images."""
        count = len(range(self.share[0], len(self.view(stage)), self.share[1]))
        with self.watch.steps(stage.name, count) as step:
            report = make(shard=self.share, step=lambda _: step())
        if report.found:
            self.watch.done(f"{stage.name}: {report.made} made, {report.found} were there")
        return {"images": report.made + report.found, "made": report.made, "broken": report.broken}


def _per_colour(value: float | tuple[float, float, float]) -> tuple[float, float, float]:
    return value if isinstance(value, tuple) else (value, value, value)


def classifier(stage: Stage, work: StageContext) -> Told:
    """Train a classifier."""
    s, model = stage.settings, work.network(stage)
    method = {k: v for k, v in s["method"].items() if k != "name"}
    done = train_classifier(
        model,
        work.view(stage),
        work.cache.folder(stage),
        method=restore_settings(METHODS[s["method"]["name"]], method),
        learning=restore_settings(LearningSettings, s["learning"]),
        span=restore_settings(SpanSettings, s["span"]),
        validation=None if s["validation"] is None else View(work.data[s["validation"]], masks=False),
        keep=s["keep"],
        output_stride=s["output_stride"],
        keep_head=None if s["head"] is None else s["head"] == "keep",
        preprocess=work.reads(stage, model) if "network" in s else None,
        workers=work.workers,
        allow_missing=stage.part in work.allow_missing,
        made_with=work.made_with(stage),
        watch=work.watch,
    )
    return {"images": len(work.view(stage)), "broken": done.broken, "figures": {"losses": done.losses}}


def seeds(stage: Stage, work: StageContext) -> Told:
    """Explain every image for the classes that it is labelled with."""
    s, model, data = stage.settings, work.network(stage), work.view(stage)
    made = camplug.create(s["explainer"], model, preprocess=work.reads(stage, model, s["long_side"]))
    settings = {**s, "labels": "given", "network": work.told_of(stage, model)}
    folder = work.into(stage, SeedFolder(work.cache.folder(stage)), settings)

    def make(**share: Any) -> Report:
        return make_seeds(made, data, folder, dtype=s["dtype"], scale=s["scale"], **share)

    return work.each(stage, make)


def affinities(stage: Stage, work: StageContext) -> Told:
    """Train what a walk asks."""
    s, model = stage.settings, work.network(stage)
    irn = s["kind"] == "irn"
    train: Any = train_irn if irn else train_affinitynet
    layers = s["layers"]
    done = train(
        model,
        work.view(stage),
        SeedFolder(work.of(stage, "seeds")),
        work.cache.folder(stage),
        restore_settings(IRNSettings if irn else AffinityNetSettings, s["training"]),
        layers=layers if isinstance(layers, str) else list(layers),
        preprocess=work.reads(stage, model),
        workers=work.workers,
        allow_missing=stage.part in work.allow_missing,
        made_with=work.made_with(stage),
        watch=work.watch,
    )
    figures = {"losses": done.losses, "learned_from": done.label_settings}
    return {"images": len(work.view(stage)), "broken": done.broken, "figures": figures}


def maps(stage: Stage, work: StageContext) -> Told:
    """Let the seeds walk."""
    s, data = stage.settings, work.view(stage)
    model, file = work.network(stage), work.of(stage, "heads") / HEADS[s["kind"]]
    walk: Any
    if s["kind"] == "irn":
        walk = IRNWalk(load_irn(file, model), **s["walk"])
    else:
        walk = AffinityNetWalk(load_affinitynet(file, model), **s["walk"])
    settings = {**s, "heads": make_file_digest(file, "file of heads"), "network": work.told_of(stage, model)}
    folder = work.into(stage, SeedFolder(work.cache.folder(stage)), settings)
    before = SeedFolder(work.of(stage, "seeds"))

    def make(**share: Any) -> Report:
        return make_walked_seeds(walk, data, before, folder, dtype=s["dtype"], scale=s["scale"], **share)

    return work.each(stage, make)


def cut(stage: Stage, work: StageContext) -> Told:
    """Find the threshold that parts the maps' values best; the first process does it for all."""
    if work.share[0]:
        return {}
    maps, ids = SeedFolder(work.of(stage, "maps")), work.view(stage).ids
    (threshold,), images = compute_otsu_of_seeds(maps, ids, 2, lambda count: work.watch.steps(stage.name, count))
    return {"images": images, "figures": {"threshold": threshold, "images": images}}


def labels(stage: Stage, work: StageContext) -> Told:
    """Cut the maps, and draw the labels to the edges."""
    s, data = stage.settings, work.view(stage)
    value, how = choice_of(stage, work.cache)
    assert value is not None
    crf = None if s["crf"] is None else restore_settings(CRFSettings, s["crf"])
    folder = work.into(stage, LabelFolder(work.cache.folder(stage)), {**s, "threshold": value})
    made = PseudoLabels(Threshold(value), crf, s["certainty"])
    before = SeedFolder(work.of(stage, "maps"))
    told = work.each(stage, lambda **share: make_labels(made, data, before, folder, **share))
    return told | {"figures": {"threshold": value, "threshold_chosen": how}}


def deeplab(stage: Stage, work: StageContext) -> Told:
    """Train the segmentation network on the pseudo-labels."""
    s, model = stage.settings, work.network(stage)
    done = train_deeplab(
        model,
        work.view(stage),
        work.of(stage, "labels"),
        work.cache.folder(stage),
        restore_settings(DeepLabSettings, s["training"]),
        saliency=s["saliency"],
        preprocess=work.reads(stage, model) if "network" in s else None,
        workers=work.workers,
        allow_missing=stage.part in work.allow_missing,
        made_with=work.made_with(stage),
        watch=work.watch,
    )
    return {"images": len(work.view(stage)), "broken": done.broken, "figures": {"losses": done.losses}}


def predictions(stage: Stage, work: StageContext) -> Told:
    """Segment every image, by no label."""
    s, data = stage.settings, work.view(stage)
    file = work.of(stage, "deeplab") / DEEPLAB
    network = load_deeplab(file).to(work.device)
    crf = None if s["crf"] is None else restore_settings(CRFSettings, s["crf"])
    segmenter = Segmenter(network, tuple(s["scales"]), s["flip"], s["fuse"], crf, s["long_side"])
    settings = {k: v for k, v in s.items() if k != "only"} | {"network": make_file_digest(file, "network")}
    folder = work.into(stage, LabelFolder(work.cache.folder(stage)), settings)
    return work.each(stage, lambda **share: make_predictions(segmenter, data, folder, **share))


def evaluate(stage: Stage, work: StageContext) -> Told:
    """Score a product against masks; the first process does it for all."""
    if work.share[0]:
        return {}
    data = work.view(stage)
    with work.watch.steps(stage.name, len(data)) as step:
        return scored(stage, work.cache, data, step)


RUN: Mapping[str, Callable[[Stage, StageContext], Told]] = {
    "classifier": classifier,
    "seeds": seeds,
    "affinities": affinities,
    "maps": maps,
    "cut": cut,
    "labels": labels,
    "deeplab": deeplab,
    "predictions": predictions,
    "evaluate": evaluate,
}
