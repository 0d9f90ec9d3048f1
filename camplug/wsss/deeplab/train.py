"""Training of DeepLab, from label pictures to a file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from camplug.errors import InputError
from camplug.images.preprocess import Preprocess
from camplug.wsss.class_names import order_like_folder
from camplug.wsss.classifier.checkpoint import get_made_with
from camplug.wsss.data import SegmentationData
from camplug.wsss.deeplab.checkpoint import DEEPLAB_FILE, load_deeplab, save_deeplab
from camplug.wsss.deeplab.crops import Saliency, SegmentationCrops, make_normalizer
from camplug.wsss.deeplab.lightning_module import DeepLabTraining
from camplug.wsss.deeplab.network import DeepLab, build_deeplab, get_deeplab_settings
from camplug.wsss.deeplab.settings import DeepLabNetworkSettings, DeepLabSettings
from camplug.wsss.saliency import KINDS, make_saliency_table
from camplug.wsss.store.identity import hash_weights, make_file_table, make_photograph_table
from camplug.wsss.store.label_folder import LabelFolder
from camplug.wsss.store.processes import get_shard, wait_for_processes
from camplug.wsss.train.crops import LabelCrops, check_label_content, load_label_picture
from camplug.wsss.train.device_state import find_device, keep_generators
from camplug.wsss.train.fit import check_batch, fit
from camplug.wsss.train.folder import CHECKPOINTS, TrainingFolder, describe_classes, find_labelled
from camplug.wsss.train.progress import ProgressCallback
from camplug.wsss.train.result import TrainingResult, format_losses
from camplug.wsss.train.unreadable import find_readable, join_broken

FILE = "deeplab.pt"


class TrainedDeepLab(TrainingResult[DeepLab]):
    """Result of a training of DeepLab."""


def train_deeplab(
    model: nn.Module,
    data: SegmentationData,
    labels: str | Path,
    out: str | Path,
    settings: DeepLabSettings | None = None,
    *,
    saliency: str | Path | Literal["contrast", "spectral"] | None = None,
    preprocess: Preprocess | None = None,
    workers: int = 0,
    amp: bool = True,
    log: Literal["csv", "tensorboard"] = "csv",
    allow_missing: bool = False,
    overwrite: bool = False,
    made_with: Mapping[str, Any] | None = None,
    watch: ProgressCallback | None = None,
) -> TrainedDeepLab:
    """Train DeepLab on label pictures and write `out`/deeplab.pt.

    After an interruption, the same call resumes after the last full epoch and gives the same network. Images without a
    label picture are left out and reported. Training runs on the model's device, on a copy of the model. Under torchrun
    several processes share every batch.

    Args:
        model: network to start from; see `build_deeplab`.
        data: photographs; labels and masks are not read.
        labels: folder of label pictures, NAME.png of the photograph's size: 0 background, c + 1 for class c, 255
            ignored.
        out: folder for checkpoints, losses and the network.
        settings: settings of network and training.
        saliency: saliency maps for `settings.network.refinement`: a folder of grey pictures, or "contrast" or
            "spectral", which need no model.
        preprocess: normalisation of photographs; None uses the model's own.
        workers: processes that load images.
        amp: mixed precision on CUDA.
        log: "csv", or "tensorboard", which needs that package.
        allow_missing: see `train_classifier`; label pictures may be missing in any number.
        overwrite: replace a training of other settings or images in `out`; by default it raises.
        made_with: specification of the model; see `save_deeplab`. Models of `camplug.load_model` carry it.
        watch: progress callback.

    Raises:
        InputError: `out` holds a training of other settings, no image has labels, an option is out of range, or only
            one of saliency and its weight is given.
        ModelError: the model has no feature maps or cannot have the output stride, or the loss became NaN or infinite.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    settings = DeepLabSettings() if settings is None else settings
    watch = ProgressCallback() if watch is None else watch
    made_with = get_made_with(model) if made_with is None else made_with
    span, source = settings.training, Path(labels)
    salient = _find_saliency(saliency, settings.network, data)
    if not source.is_dir():
        raise InputError(f"there is no folder of labels {str(source)!r}.")
    folder, file = TrainingFolder(out), Path(out) / FILE
    data = order_like_folder(folder, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(span.seed)
        network = build_deeplab(model, data.classes, settings.network, preprocess=preprocess)
    folder.prepare_training(
        {
            **_describe_training(settings, network, data),
            "model": dict(made_with),
            "labels": describe_classes(source),
            "saliency": saliency if saliency is None or saliency in KINDS else "a folder",
        },
        data,
        _compute_tables(data, source, saliency),
        file=file,
        steady=settings.network.schedule.is_steady,
        overwrite=overwrite,
    )
    device = find_device(model)
    if folder.is_finished(file):
        watch.done(f"{file} was there")
        base = None if made_with.get("model") else copy.deepcopy(model)
        return TrainedDeepLab(load_deeplab(file, base).to(device), file)
    items, left_out = _make_items(data, source, settings, network, salient, allow_missing)
    check_batch(items, span.batch * settings.accumulate)
    check_label_content(items.crops.labels, items.crops.indices, "give labels that show classes")
    module = DeepLabTraining(network, settings.network, ids=data.ids, seed=span.seed)
    folder.write_settings()
    options: dict[str, Any] = {"workers": workers, "amp": amp, "log": log, "progress": watch.bars}
    with keep_generators(device):
        losses = fit(
            module,
            items,
            Path(out) / CHECKPOINTS,
            epochs=span.epochs,
            batch=span.batch,
            device=str(device),
            **options,
            accumulate=settings.accumulate,
            header=DEEPLAB_FILE.make_header(network, made_with),
        )
    watch.done(f"training: {span.epochs} epochs of {len(items)} images; {format_losses(losses) or 'made before'}")
    network.to(device).eval().requires_grad_(True)
    if get_shard()[0] == 0:
        save_deeplab(file, network, made_with)
        watch.done(f"{file}: DeepLab with the head {network.kind} for {len(network.classes)} classes")
    wait_for_processes("deeplab")  # the file exists when any process returns
    broken = join_broken(data, items.substitutes.list_broken(), *left_out)
    return TrainedDeepLab(network, file, len(items), losses, broken)


def _describe_training(settings: DeepLabSettings, network: DeepLab, data: SegmentationData) -> dict[str, Any]:
    """Return the settings, the initial network and the classes of a training as plain data."""
    return {
        "network": get_deeplab_settings(network) | {"start": hash_weights(network.body)},
        "classes": list(data.classes),
        "learning": asdict(settings.network),
        "training": asdict(settings.training) | {"accumulate": settings.accumulate},
    }


def _compute_tables(data: SegmentationData, labels: Path, saliency: str | Path | None) -> dict[str, dict[str, str]]:
    """Compute the digests of photographs, label pictures and saliency pictures by image name."""
    tables = {
        "photographs": make_photograph_table(data),
        "pictures": make_file_table(data.ids, LabelFolder(labels).get_path),
    }
    if saliency is not None and saliency not in KINDS:
        tables["saliency"] = make_saliency_table(Path(saliency), data)
    return tables


def _make_items(  # noqa: PLR0917
    data: SegmentationData,
    labels: Path,
    settings: DeepLabSettings,
    network: DeepLab,
    saliency: Saliency | None,
    allow_missing: bool,
) -> tuple[SegmentationCrops, list[list[tuple[str, str]]]]:
    """Make the training items of the readable images with labels; return the others with the reasons, too."""
    readable, unreadable = find_readable(data, allow_missing=allow_missing)
    labelled, broken = find_labelled(LabelFolder(labels), data)
    indices = sorted({*labelled} & {*readable})
    if not indices:
        first = (broken or unreadable)[0][1]
        raise InputError(f"none of the {len(data)} images has labels to train on; the first one: {first}")
    crops = LabelCrops(
        data,
        partial(load_label_picture, LabelFolder(labels).renumber(data.classes), data),
        make_normalizer(network.preprocess),
        crop=settings.training.crop,
        scales=settings.training.scales,
        stride=1,
        long_side=settings.training.long_side,
        seed=settings.training.seed,
        indices=indices,
        allow_missing=allow_missing,
    )
    items = SegmentationCrops(crops, saliency)
    items.substitutes.leave_out(readable)
    return items, [broken, unreadable]


def _find_saliency(
    given: str | Path | None, settings: DeepLabNetworkSettings, data: SegmentationData
) -> Saliency | None:
    """Return the loader of saliency, or None where the loss has no term for it; raise InputError if they differ."""
    if (given is not None) != (settings.refinement > 0):
        given_what = "saliency without refinement" if given is not None else "refinement without saliency"
        raise InputError(f"{given_what}: the activation-aware term needs both; give both, or neither.")
    if given is None:
        return None
    from camplug.wsss.saliency import check_saliency, make_saliency

    check_saliency(given, data)
    return make_saliency(given)
