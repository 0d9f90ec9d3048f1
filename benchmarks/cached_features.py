"""Early features of photographs, computed once: what `benchmarks/cached_training.py` trains on.

The frozen part is EfficientNet-Lite0 up to its last map of stride 16. Every training image is cropped once; its views
(as it is, with enhanced and with decreased contrast, in other sizes) are kept in half precision.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from device_data import READS, Part, classifier, opened
from torch import Tensor, nn

from camplug.explain.fuse import normalize_map
from camplug.metrics import ThresholdSweep, false_discovery_rate, miou, precision, recall
from camplug.wsss.atm import DECREASED, ENHANCED, adjust_grey
from camplug.wsss.classifier.crops import ClassifierCrop, ClassifierCrops
from camplug.wsss.classifier.lightning_module import ClassifierTraining
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.data import SegmentationData
from camplug.wsss.fpr.gather import PrototypePass, set_eval_mode
from camplug.wsss.fpr.prototypes import Prototypes
from camplug.wsss.rpnet.lightning_module import rescale

CLASSES = ("cat", "cow", "dog", "horse", "person", "sheep")
GREY = {"original": None, "enhanced": ENHANCED, "decreased": DECREASED}
SCALES = ("0.5", "1.5", "2.0")
VIEWS = (*GREY, *SCALES)
EVERY = {"train": 3, "val": 1}  # thresholds are chosen on every third image of train
CROP, SIDES, LONG_SIDE = 224, (224, 336), 320
BATCH = 4  # images at once: larger batches take longer on a CPU


class LateNetwork(nn.Module):
    """EfficientNet-Lite0 whose forward pass takes images or features of its last layer of stride 16.

    Args:
        model: network of timm, with its classifier.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.early = nn.Sequential(model.conv_stem, model.bn1, *model.blocks[:5]).requires_grad_(False)
        self.entry = nn.Identity()  # name of the cached layer, for RPNet's stages
        self.late = nn.Sequential(*model.blocks[5:], model.conv_head, model.bn2)
        self.classifier = model.classifier
        self.pretrained_cfg = {"input_size": (3, CROP, CROP), "mean": READS.mean, "std": READS.std}

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last feature map of images [N,3,H,W] or of cached features [N,112,h,w]."""
        return self.late(self.entry(self.early(x) if x.shape[1] == 3 else x))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits."""
        return self.classifier(self.forward_features(x).mean((2, 3)))  # type: ignore[no-any-return]


def load_network(weights: Path) -> LateNetwork:
    """Load the trained classifier of the animals subset."""
    return LateNetwork(classifier(weights, "cpu")).eval()


class CachedCrops(ClassifierCrops):
    """Crops whose pixels are cached features of the original view, float16 [112,14,14]."""

    def __init__(
        self, data: SegmentationData, folder: Path, *, seed: int, indices: list[int] | None = None, every: int = 1
    ) -> None:
        super().__init__(data, crop=CROP, sides=SIDES, seed=seed, indices=indices)
        self.views = {view: np.load(file, mmap_mode="r") for view, file in list_views(folder, every).items()}

    def load_crop(self, epoch: int, i: int, slot: int = 0, classes: Any = ()) -> ClassifierCrop:
        present = torch.zeros(len(self.data.classes))
        present[list(self.get_classes(i))] = 1
        return ClassifierCrop(self.load_view("original", [i])[0], present, torch.tensor(i))

    def load_view(self, view: str, images: Any) -> Tensor:
        """Load the features of a view of several images, float16 [N,112,h,w]."""
        if view not in self.views:
            raise SystemExit(f"the cache has no view {view!r}; run with --views {view} first.")
        return torch.from_numpy(self.views[view][np.asarray(images)])


def connect(module: ClassifierTraining, crops: CachedCrops) -> None:
    """Let a training of any method read its views from the cache instead of computing them from pixels."""

    def load(view: str, images: Tensor) -> Tensor:
        return crops.load_view(view, images.tolist()).float().contiguous(memory_format=torch.channels_last)

    names = {change: view for view, change in GREY.items()}
    replaced: dict[str, Any] = {
        "normalize": lambda pixels: pixels.float().contiguous(memory_format=torch.channels_last),
        "make_views": lambda batch, step: [load(names[c], batch.image) for c in module.method.changes],  # type: ignore
        "rescale_view": lambda x, batch, scale: load(str(float(scale)), batch.image),
    }
    if isinstance(passed := getattr(module, "gather", None), PrototypePass):
        replaced["gather"] = CachedPass(passed, crops)
    for name, function in replaced.items():
        if hasattr(module, name):
            setattr(module, name, function)


class CachedPass:
    """FPR's prototypes from the cached crops; see `PrototypePass`."""

    def __init__(self, passed: PrototypePass, crops: CachedCrops) -> None:
        self.passed, self.crops, self.passes = passed, crops, 0

    @torch.no_grad()
    def __call__(self, network: Classifier, normalize: Any, *, workers: int = 0) -> Prototypes:
        self.passes += 1
        collector, indices = self.passed.collector(), self.crops.indices
        with set_eval_mode(network):
            for k in range(0, len(indices), BATCH):
                batch = [self.crops.load_crop(0, i) for i in indices[k : k + BATCH]]
                present = torch.stack([crop.present for crop in batch])
                features = network.features(normalize(torch.stack([crop.pixels for crop in batch])))
                collector.add(features, network.class_maps(features), present, [int(crop.image) for crop in batch])
        return collector.prototypes(self.passed.groups)


# ---- scores


@torch.no_grad()
def score(network: Classifier, args: Any, classes: tuple[str, ...] = CLASSES) -> dict[str, Any]:
    """Score CAM's seeds on val at the threshold of train: mIoU of background and `classes`, their other means."""
    network.eval()
    sweeps = {}
    for split, step in EVERY.items():
        data = Part(opened(args.data, split), None, step)
        features = torch.load(args.cache / f"{split}.pt", weights_only=True)
        sweeps[split] = ThresholdSweep(len(data.classes) + 1)
        wanted = {data.classes.index(c) for c in classes} if classes != CLASSES else set(range(len(data.classes)))
        for i, x in enumerate(features):
            shown = [c for c in data.labels(i) if c in wanted]
            mask = data.mask(i)
            maps = network.class_maps(network.features(x[None].float()))[:, shown].clamp_min(0)
            maps = F.interpolate(maps, mask.shape, mode="bilinear")[0] if shown else torch.zeros(0, *mask.shape)
            sweeps[split].add(normalize_map(maps, "max").numpy(), shown, mask)
    indices = [0, *(data.classes.index(c) + 1 for c in classes)]
    threshold, on_train = sweeps["train"].best("present", indices)
    matrix = sweeps["val"].at(threshold)
    means = {"precision": precision, "recall": recall, "fdr": false_discovery_rate}
    return {
        "miou": 100 * float(miou(matrix, "present", indices)),
        **{what: 100 * float(np.nanmean(of(matrix)[indices[1:]])) for what, of in means.items()},
        "threshold": threshold,
        "train": 100 * on_train,  # settings are chosen on this one
    }


# ---- writing the cache


def list_views(folder: Path, every: int) -> dict[str, Path]:
    """List the views that the cache holds for every n-th photograph, and their files."""
    names = {view: (_name(folder, view), _name(folder, view, every)) for view in VIEWS}
    return {
        view: next(file for file in files if file.exists())
        for view, files in names.items()
        if any(file.exists() for file in files)
    }


def write_cache(args: Any) -> None:
    """Compute the missing views of train_aug, and the photographs of train and val in one size."""
    args.cache.mkdir(parents=True, exist_ok=True)
    _check(args.cache)
    network = load_network(args.weights)
    early = network.early.to(memory_format=torch.channels_last)
    there = list_views(args.cache, args.every)
    missing = [view for view in args.views if view not in there]
    if missing:
        _write_views(early, opened(args.data, "train_aug"), args.cache, missing, args.every)
    for split, step in EVERY.items():
        file = args.cache / f"{split}.pt"
        if not file.exists():
            data = Part(opened(args.data, split), None, step)
            reads = replace(READS, long_side=LONG_SIDE)
            torch.save([_run(early, reads(data.photo(i))[0][None])[0].half() for i in range(len(data))], file)


def _write_views(early: nn.Module, data: SegmentationData, folder: Path, views: list[str], every: int) -> None:
    images = list(range(0, len(data), every))
    crops = ClassifierCrops(data, crop=CROP, sides=SIDES, mean=READS.mean, seed=0)
    mean, std = (255 * torch.tensor(v)[:, None, None] for v in (READS.mean, READS.std))
    files: dict[str, Any] = {}
    for k in range(0, len(images), BATCH):
        numbers = images[k : k + BATCH]
        pixels = torch.stack([crops.load_crop(0, i).pixels for i in numbers])
        for view in views:
            change = GREY.get(view)
            x = ((pixels if change is None else adjust_grey(pixels, change)) - mean) / std
            found = _run(early, rescale(x, float(view)) if view in SCALES else x).half().numpy()
            if view not in files:
                name, shape = _name(folder, view, every).with_suffix(".part"), (len(data), *found.shape[1:])
                files[view] = np.lib.format.open_memmap(name, "w+", np.float16, shape)
            files[view][numbers] = found
        print(f"{k + len(found)} of {len(images)}", end="\r", file=sys.stderr, flush=True)
    for view, file in files.items():
        file.flush()
        _name(folder, view, every).with_suffix(".part").rename(_name(folder, view, every))


@torch.no_grad()
def _run(early: nn.Module, x: Tensor) -> Tensor:
    return early(x.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


def _name(folder: Path, view: str, every: int = 1) -> Path:
    return folder / f"{view}{f'_every_{every}' if every > 1 else ''}.npy"


def _check(folder: Path) -> None:
    """Stop if the cache was made with other settings."""
    settings = {"crop": CROP, "sides": SIDES, "long side": LONG_SIDE, "changes": str(GREY)}
    file, text = folder / "settings.json", json.dumps(settings)
    if file.exists() and file.read_text() != text:
        raise SystemExit(f"{folder} holds features of other settings; give another --cache, or delete it.")
    file.write_text(text)
