"""What a stage costs, found by doing a little of it: an image, one training step at the real crop."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import default_collate

import camplug
from camplug.metrics import ConfusionMatrix, ThresholdSweep
from camplug.models import load_model
from camplug.settings import restore_settings
from camplug.wsss.affinitynet import AffinityNet, make_alpha_labels
from camplug.wsss.affinitynet.settings import AffinityNetSettings
from camplug.wsss.classifier.crops import ClassifierCrops
from camplug.wsss.classifier.method import Method
from camplug.wsss.classifier.network import build_classifier, get_preprocess
from camplug.wsss.classifier.settings import LearningSettings, SpanSettings
from camplug.wsss.crf import CRFSettings, DenseCRF
from camplug.wsss.data import SegmentationData
from camplug.wsss.deeplab import DeepLabSettings, Segmenter, build_deeplab, multiscale_loss
from camplug.wsss.deeplab.lightning_module import DeepLabTraining
from camplug.wsss.fpr.method import FPR
from camplug.wsss.irn import IRN, make_ir_labels
from camplug.wsss.irn.settings import IRNSettings
from camplug.wsss.pseudo import AffinityNetWalk, IRNWalk, LabelFolder, PseudoLabels, Threshold
from camplug.wsss.pseudo.refine import crf_settings
from camplug.wsss.recipe.measure import measured
from camplug.wsss.recipe.placeholder_data import Blank, First, clouds
from camplug.wsss.recipe.recipe_settings import METHODS, NetworkSettings
from camplug.wsss.recipe.stages import OF_MAPS, Stage
from camplug.wsss.seeds import Seed, SeedFolder, make_seeds
from camplug.wsss.store.jobs import Report
from camplug.wsss.store.seed_folder import pack_maps
from camplug.wsss.train import Backbone, Crop

FEW = 2  # images of a training step
LONG = 8.0  # seconds at half the side, from which on the whole side is not tried
COPIES = 6  # of weights: two checkpoints with what the optimizer keeps, and the file
HALF = "time and memory from half the side"


@dataclass
class Cost:
    """What one unit of a stage's work costs.

    Attributes:
        seconds: of an image; in trainings of an image in an epoch.
        fixed: seconds of what is done once for every image beside.
        bytes: on disk of an image.
        files: bytes on disk once, of weights and checkpoints.
        memory: bytes at its peak; of a training's own batch.
        scaled: what is not measured but reckoned.
    """

    seconds: float
    fixed: float = 0.0
    bytes: float = 0.0
    files: float = 0.0
    memory: float = 0.0
    scaled: list[str] = field(default_factory=list)


class Probe:
    """Does a little of each stage, with networks as they are built, whatever their weights.

    Args:
        data: what stands for the images of a stage.
        device: that networks run on.
    """

    def __init__(self, data: SegmentationData, device: str = "cpu") -> None:
        self.data, self.device = data, device
        self.photos = [np.asarray(data.photo(i)) for i in range(min(FEW, len(data)))]
        shown = [max(1, len(data.labels(i))) for i in range(len(self.photos))]
        self.shown = max(shown)
        self.models: dict[str, nn.Module] = {}

    def cost(self, stage: Stage) -> Cost:
        """What a stage costs."""
        found: Cost = getattr(self, stage.kind)(stage)
        return found

    def network(self, stage: Stage) -> nn.Module:
        """The network of a stage, built without weights."""
        key = json.dumps({k: v for k, v in stage.settings.items() if k == "network"}) + (
            stage.inputs["network"].name if "network" in stage.inputs else ""
        )
        if key not in self.models:
            self.models[key] = self._network(stage).to(self.device)
        return self.models[key]

    def _network(self, stage: Stage) -> nn.Module:
        if "network" in stage.inputs:
            return self.classifier_of(stage.inputs["network"])
        named = restore_settings(NetworkSettings, stage.settings["network"])
        return load_model(named.model, num_classes=named.num_classes, pretrained=False)

    def classifier_of(self, stage: Stage) -> nn.Module:
        """The untrained classifier of a stage that trains one."""
        s = stage.settings
        method = self.method_of(stage)
        return build_classifier(
            self.network(stage),
            self.data.classes,
            neck=method.get_neck_settings(),
            output_stride=s["output_stride"],
            keep_head=False,
        )

    def method_of(self, stage: Stage) -> Method:
        """How a stage trains a classifier."""
        given = stage.settings["method"]
        return restore_settings(METHODS[given["name"]], {k: v for k, v in given.items() if k != "name"})

    def classifier(self, stage: Stage) -> Cost:
        """A training step of a classifier."""
        method, span = self.method_of(stage), restore_settings(SpanSettings, stage.settings["span"])
        learning = restore_settings(LearningSettings, stage.settings["learning"])
        scaled = []
        one = Method() if isinstance(method, FPR) else method

        def step(crop: int, count: int) -> Callable[[], None]:
            network: Any = self.classifier_of(stage).to(self.device)
            pictures = ClassifierCrops(self.data, crop=crop, sides=span.sides, mean=network.preprocess.mean)
            items = one.make_items(pictures)
            module = one.make_module(network, learning, pictures).to(self.device).train()
            batch = default_collate([items[0, i % len(items)] for i in range(max(1, count // one.group))])
            return lambda: _backward(module.training_step(_to(batch, self.device), 0))

        count = max(FEW, one.group)
        cost = self.training(step, span.crop, count, span.batch, stage)
        if isinstance(method, FPR) and method.needs_prototypes:
            passes = sum(s * s for s in method.pass_scales) * (2 if method.pass_flip else 1)
            cost.seconds *= 1 + passes / 3
            scaled.append("the pass for prototypes from the step")
        cost.scaled += scaled
        return cost

    def training(
        self, step: Callable[[int, int], Callable[[], None]], crop: int, count: int, batch: int, stage: Stage
    ) -> Cost:
        """The cost of a step at the real crop with a few images, scaled to the real batch."""
        half = max(32, crop // 64 * 32)
        found, scaled = self.tried(lambda whole: step(crop if whole else half, count), (crop / half) ** 2)
        weights = sum(p.numel() * p.element_size() for p in self.network(stage).parameters())
        memory = found["base"] + found["grown"] * batch / count
        scaled += [f"memory and time from {count} images to a batch of {batch}"] if batch != count else []
        scaled += ["disk from the weights' size"]
        return Cost(found["seconds"] / count, files=COPIES * weights, memory=memory, scaled=scaled)

    def tried(self, ready: Callable[[bool], Callable[[], object]], ratio: float) -> tuple[dict[str, float], list[str]]:
        """What work costs, done at half the side first, and at the whole one unless that takes long.

        Args:
            ready: makes all ready for the work at the whole side (True) or at half of it.
            ratio: of the pixels.

        Returns:
            As from `measured`, and what of it is scaled.
        """
        work = ready(False)
        with measured(self.device) as found:
            work()
        if found["seconds"] > LONG:
            return found | {"seconds": ratio * found["seconds"], "grown": ratio * found["grown"]}, [HALF]
        work = ready(True)
        with measured(self.device) as found:
            work()
        return found, []

    def seeds(self, stage: Stage) -> Cost:
        """One image explained."""
        s, model = stage.settings, self.network(stage)
        base = get_preprocess(model)
        classes = getattr(model, "classes", None)
        outputs = len(classes) if classes is not None else _outputs(model, base.size, self.device)
        data = self.data
        if outputs != len(data.classes):  # another head changes next to nothing
            data = Blank((self.photos[0].shape[0], self.photos[0].shape[1]), outputs, self.shown)
        few = First(data, 1)
        side = s["long_side"]

        def explain(whole: bool) -> Callable[[], object]:
            smaller = side if whole or side is None else max(32, side // 2)
            made = camplug.create(s["explainer"], model, preprocess=replace(base, long_side=smaller))
            there = SeedFolder(tempfile.mkdtemp(dir=folder))
            there.prepare({})
            return lambda: reports.append(make_seeds(made, few, there, dtype=s["dtype"], scale=s["scale"]))

        reports: list[Report] = []
        with tempfile.TemporaryDirectory() as folder:
            found, scaled = self.tried(explain, 1 if side is None else (side / max(32, side // 2)) ** 2)
        if reports[-1].broken:
            raise RuntimeError(reports[-1].broken[0][1])
        memory = found["base"] + found["grown"]
        return Cost(
            found["seconds"], bytes=reports[-1].bytes, memory=memory, scaled=[*scaled, "disk: maps of no training"]
        )

    def maps_of(self, photo: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps [K,H,W] of nothing."""
        return np.stack([clouds((photo.shape[0], photo.shape[1]), 7 + k) for k in range(self.shown)])

    def heads(self, stage: Stage) -> tuple[Any, Any]:
        """The untrained network of a walk, and its settings."""
        s = stage.settings
        irn = s["kind"] == "irn"
        training: Any = restore_settings(IRNSettings if irn else AffinityNetSettings, s["training"])
        layers = s["layers"] if isinstance(s["layers"], str) else list(s["layers"])
        network: Any = (IRN if irn else AffinityNet)(Backbone(self.network(stage), layers), training.network)
        return network.to(self.device), training

    def affinities(self, stage: Stage) -> Cost:
        """Labels of an image, and a training step."""
        network, training = self.heads(stage)
        photo, irn = self.photos[0], stage.settings["kind"] == "irn"
        maps, settings = self.maps_of(photo), crf_settings(training.crf)
        start = time.perf_counter()
        crf = None if settings is None else DenseCRF(photo, settings)
        if irn:
            make_ir_labels(maps, crf)  # whatever its thresholds
            network.eval().displacements(photo)
        else:
            make_alpha_labels(maps, crf, low=training.low, high=training.high)
        once = time.perf_counter() - start
        stride = 4 if irn else 8

        def step(crop: int, count: int) -> Callable[[], None]:
            labels = (clouds((crop // stride, crop // stride), 1) * (self.shown + 1)).astype(np.uint8)
            batch = Crop(torch.rand(count, 3, crop, crop), torch.from_numpy(np.stack([labels] * count)))
            batch = _to(batch, self.device)
            network.train()
            return lambda: _backward(network.training_step(batch, 0))

        span = training.training
        cost = self.training(step, span.crop, FEW, span.batch, stage)
        heads = sum(p.numel() * p.element_size() for p in network.parameters())
        return replace(cost, fixed=once, bytes=_png(photo), files=COPIES * heads)

    def maps(self, stage: Stage) -> Cost:
        """One image's walk."""
        s = stage.settings
        network, _ = self.heads(stage.inputs["heads"])
        walk: Any = (
            IRNWalk(network.eval(), **s["walk"]) if s["kind"] == "irn" else AffinityNetWalk(network.eval(), **s["walk"])
        )
        photo = self.photos[0]
        with measured(self.device) as found:
            walked = walk.maps(photo, self.maps_of(photo))
        stored = pack_maps(torch.from_numpy(walked), s["dtype"], s["scale"])
        seed = Seed(stored, tuple(range(len(walked))), walked.shape[1:], np.zeros(0, "f4"))
        with tempfile.TemporaryDirectory() as folder:
            there = SeedFolder(folder)
            there.prepare({})
            there.save("one", seed)
            size = there.get_path("one").stat().st_size
        return Cost(
            found["seconds"], bytes=size, memory=found["base"] + found["grown"], scaled=["disk: maps of no training"]
        )

    def labels(self, stage: Stage) -> Cost:
        """One image's labels."""
        s, photo = stage.settings, self.photos[0]
        crf = None if s["crf"] is None else restore_settings(CRFSettings, s["crf"])
        made = PseudoLabels(Threshold(0.3), crf, s["certainty"])
        with measured(self.device) as found:
            made(photo, self.maps_of(photo))
        return Cost(found["seconds"], bytes=_png(photo), memory=found["base"] + found["grown"])

    def deeplab(self, stage: Stage) -> Cost:
        """A training step of the segmentation network."""
        training = restore_settings(DeepLabSettings, stage.settings["training"])

        def step(crop: int, count: int) -> Callable[[], None]:
            network = build_deeplab(self.network(stage), self.data.classes, training.network)
            module = DeepLabTraining(network, training.network).to(self.device).train()
            labels = torch.from_numpy((clouds((crop, crop), 1) * (self.shown + 1)).astype(np.uint8))
            x, y = torch.rand(count, 3, crop, crop, device=self.device), labels[None].repeat(count, 1, 1)
            balanced = training.network.loss == "balanced"
            return lambda: _backward(multiscale_loss(module.logits(x), y.to(self.device), balanced=balanced))

        return self.training(step, training.training.crop, FEW, training.training.batch, stage)

    def predictions(self, stage: Stage) -> Cost:
        """One image segmented."""
        s, photo = stage.settings, self.photos[0]
        source = stage.inputs["deeplab"]
        training = restore_settings(DeepLabSettings, source.settings["training"])
        network = build_deeplab(self.network(source), self.data.classes, training.network).to(self.device)
        crf = None if s["crf"] is None else restore_settings(CRFSettings, s["crf"])

        def segment(whole: bool) -> Callable[[], object]:
            picture = Image.fromarray(photo)
            shown = photo if whole else np.asarray(picture.resize((photo.shape[1] // 2, photo.shape[0] // 2)))
            side = s["long_side"] if whole or s["long_side"] is None else s["long_side"] // 2
            segmenter = Segmenter(network, tuple(s["scales"]), s["flip"], s["fuse"], crf, side)
            return lambda: segmenter(shown)

        found, scaled = self.tried(segment, 4)
        return Cost(found["seconds"], bytes=_png(photo), memory=found["base"] + found["grown"], scaled=scaled)

    def cut(self, stage: Stage) -> Cost:
        """The values of one image's maps counted."""
        maps = (255 * self.maps_of(self.photos[0])).astype(np.uint8)
        with measured(self.device) as found:
            np.bincount(maps.max(0).ravel(), minlength=256)
        return Cost(
            found["seconds"], bytes=0.0, memory=found["base"] + found["grown"], scaled=["without reading files"]
        )

    def evaluate(self, stage: Stage) -> Cost:
        """One image scored."""
        photo, count = self.photos[0], len(self.data.classes) + 1
        maps = self.maps_of(photo)
        truth = (maps[0] > 0.5).astype(np.uint8)
        with measured(self.device) as found:
            if stage.inputs["product"].kind in OF_MAPS:
                ThresholdSweep(count).add(maps, list(range(len(maps))), truth)
            else:
                ConfusionMatrix(count).add(truth, truth)
        return Cost(
            found["seconds"], bytes=0.0, memory=found["base"] + found["grown"], scaled=["without reading files"]
        )


def _backward(loss: Any) -> None:
    loss.backward()


def _outputs(model: nn.Module, size: tuple[int, int], device: str) -> int:
    with torch.no_grad():
        return int(model(torch.zeros(1, 3, *size, device=device)).shape[-1])


def _png(photo: NDArray[np.uint8]) -> float:
    """Bytes of a label picture of a photograph's size with a few regions."""
    plane = (clouds((photo.shape[0], photo.shape[1]), 3) > 0.6).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        there = LabelFolder(folder)
        there.prepare({})
        there.save("one", plane)
        return float(there.get_path("one").stat().st_size)


def _to(batch: Any, device: str) -> Any:
    """A named tuple of tensors on a device."""
    return type(batch)(*(part.to(device) for part in batch))
