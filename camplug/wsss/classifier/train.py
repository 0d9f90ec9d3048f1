"""Training of a classifier by any method, from image-level labels to a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from camplug.errors import InputError
from camplug.images.preprocess import Preprocess
from camplug.models import MADE_WITH
from camplug.plug import unwrap
from camplug.wsss.class_names import order_like_folder, renumber_data
from camplug.wsss.classifier.checkpoint import CLASSIFIER_FILE, get_made_with, load_classifier, save_classifier
from camplug.wsss.classifier.crops import ClassifierCrops
from camplug.wsss.classifier.label_checks import choose_keep, warn_about_constant_classes
from camplug.wsss.classifier.lightning_module import VALIDATION
from camplug.wsss.classifier.method import Method
from camplug.wsss.classifier.network import Classifier, build_classifier, get_classifier_settings
from camplug.wsss.classifier.settings import LearningSettings, SpanSettings
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.identity import Inputs, hash_names, hash_weights
from camplug.wsss.store.processes import get_shard
from camplug.wsss.train.device_state import find_device, keep_generators
from camplug.wsss.train.fit import check_batch, fit
from camplug.wsss.train.folder import CHECKPOINTS, TrainingFolder, compute_tables
from camplug.wsss.train.progress import ProgressCallback
from camplug.wsss.train.result import TrainingResult, format_losses
from camplug.wsss.train.unreadable import find_readable, join_broken

FILE = "classifier.pt"


class TrainedClassifier(TrainingResult[Classifier]):
    """Result of a training of a classifier; `losses` contains the mean average precision on validation images, too."""


def train_classifier(
    model: nn.Module,
    data: SegmentationData,
    out: str | Path,
    *,
    method: Method | None = None,
    learning: LearningSettings | None = None,
    span: SpanSettings | None = None,
    validation: SegmentationData | None = None,
    keep: Literal["last", "best"] = "last",
    output_stride: int | None = None,
    keep_head: bool | None = None,
    preprocess: Preprocess | None = None,
    workers: int = 0,
    amp: bool = True,
    log: Literal["csv", "tensorboard"] = "csv",
    allow_missing: bool = False,
    overwrite: bool = False,
    made_with: Mapping[str, Any] | None = None,
    watch: ProgressCallback | None = None,
) -> TrainedClassifier:
    """Train a multi-label classifier on image-level labels and write `out`/classifier.pt. Masks are never read.

    After an interruption, the same call resumes after the last full epoch and gives the same classifier. Training runs
    on the model's device, on a copy of the model. Under torchrun every process makes the same call.

    Args:
        model: base network of the classifier; see `build_classifier`.
        data: photographs with labels.
        out: folder for checkpoints, losses and the classifier.
        method: `Method()` for ordinary training, or `ATM`, `RPNet` or `FPR` with their options.
        learning: optimizer, frozen layers and loss; by default as in IRN's code.
        span: epochs, batch and crops; by default as in IRN's code.
        validation: labelled images for the mean average precision after every epoch.
        keep: "last" keeps the weights of the last epoch, "best" those with the best mean average precision on the
            validation images; if these images cannot rank epochs, the last ones with a warning. Both rules use
            image-level labels only.
        output_stride: see `Classifier`.
        keep_head: keep the model's trained head; by default where it has the data's classes, in any order; see
            `build_classifier`.
        preprocess: normalisation of photographs; None uses the model's own.
        workers: processes that load images.
        amp: mixed precision on CUDA.
        log: "csv" or "tensorboard".
        allow_missing: train although more than 5 % of the photographs or their labels are missing or damaged. Such
            images are left out and reported, whether found before or during the training.
        overwrite: replace a training of other settings or images in `out`; by default it raises.
        made_with: specification of the model; see `save_classifier`. Models of `camplug.load_model` carry it.
        watch: progress callback.

    Raises:
        InputError: `out` holds a training of other settings, no image or too few are readable, or an option is out of
            range.
        ModelError: the model cannot be cut at its last map, or has no trained head where the method needs one, or the
            loss became NaN or infinite.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    method = Method() if method is None else method
    learning = LearningSettings() if learning is None else learning
    span = SpanSettings() if span is None else span
    watch = ProgressCallback() if watch is None else watch
    made_with = get_made_with(model) if made_with is None else made_with
    _check_keep(keep, validation)
    folder, file = TrainingFolder(out), Path(out) / FILE
    data = order_like_folder(folder, data)
    if validation is not None:
        validation = renumber_data(validation, data.classes, "the data to train on")
    if span.batch % method.group:
        raise InputError(f"batch={span.batch}: a batch holds groups of {method.group} images; give a multiple.")
    indices, missing = find_readable(data, labels=True, allow_missing=allow_missing)
    keep_head = True if method.needs_trained else keep_head
    network = _build_network(model, data, method, span.seed, output_stride, keep_head, preprocess)
    make_crops = partial(
        ClassifierCrops, crop=span.crop, sides=span.sides, mean=network.preprocess.mean, allow_missing=allow_missing
    )
    crops = make_crops(data, seed=span.seed, indices=indices)
    crops.substitutes.leave_out(indices)
    items = method.make_items(crops)
    check_batch(items, span.batch // method.group)
    folder.prepare_training(
        _describe_data(data, validation, keep)
        | {"method": {"name": method.name, **asdict(method)}, "learning": asdict(learning), "span": asdict(span)}
        | {"model": dict(made_with), "start": hash_weights(unwrap(model)), "network": get_classifier_settings(network)},
        data,
        compute_tables(data),
        file=file,
        span="span",
        steady=learning.schedule.is_steady and not getattr(method, "ramp", 0),
        overwrite=overwrite,
    )
    device = find_device(model)
    if folder.is_finished(file):
        watch.done(f"{file} was there")
        base = None if made_with.get("model") else model
        return TrainedClassifier(load_classifier(file, base).to(device), file)
    warn_about_constant_classes(data, indices)
    held_out, missing_there = None, list[tuple[str, str]]()
    if validation is not None:
        shown, missing_there = find_readable(validation, labels=True, allow_missing=allow_missing)
        held_out, keep = make_crops(validation, indices=shown, deterministic=True), choose_keep(keep, validation, shown)
    options: dict[str, Any] = {"workers": workers, "amp": amp, "log": log, "progress": watch.bars}
    with keep_generators(device):
        torch.manual_seed(span.seed)  # for modules of the method
        module = method.make_module(network, learning, crops)
        folder.write_settings()
        losses = fit(
            module,
            items,
            Path(out) / CHECKPOINTS,
            epochs=span.epochs,
            batch=span.batch // method.group,
            device=str(device),
            validation=held_out,
            best=VALIDATION if keep == "best" else None,
            **options,
            header=CLASSIFIER_FILE.make_header(network, made_with),
        )
    watch.done(f"training: {span.epochs} epochs of {len(crops)} images; {format_losses(losses) or 'made before'}")
    network.to(device).eval()
    setattr(network, MADE_WITH, dict(made_with))
    if get_shard()[0] == 0:
        save_classifier(file, network, made_with)
        watch.done(f"{file}: a classifier of {len(network.classes)} classes")
    broken = join_broken(data, crops.substitutes.list_broken(), missing)
    if held_out is not None:
        broken += join_broken(held_out.data, held_out.substitutes.list_broken(), missing_there)
    return TrainedClassifier(network, file, len(crops), losses, broken)


def _build_network(  # noqa: PLR0917
    model: nn.Module,
    data: SegmentationData,
    method: Method,
    seed: int,
    output_stride: int | None,
    keep_head: bool | None,
    preprocess: Preprocess | None,
) -> Classifier:
    """Build the classifier of a training from a seed, without changing the random generators."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_classifier(
            model,
            data.classes,
            neck=method.get_neck_settings(),
            output_stride=output_stride,
            keep_head=keep_head,
            preprocess=preprocess,
        )


def _check_keep(keep: str, validation: SegmentationData | None) -> None:
    """Raise InputError unless `keep` is known and has the validation images that it needs."""
    if keep not in ("last", "best"):
        raise InputError(f"keep={keep!r}; allowed are last and best.")
    if keep == "best" and validation is None:
        raise InputError("keep='best' chooses by validation images; give some, or keep the last weights.")


def _describe_data(data: SegmentationData, validation: SegmentationData | None, keep: str) -> dict[str, Any]:
    """Return the classes and the validation images of a training as plain data."""
    held_out: dict[str, Any] | None = None
    if validation is not None:
        digests = Inputs(compute_tables(validation)).make_digests()
        held_out = {"list_sha256": hash_names(validation), "keep": keep, **digests}
    return {"classes": list(data.classes), "validation": held_out}
