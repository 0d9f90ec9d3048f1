"""Training of heads on a frozen backbone: labels, training and a file, each resumable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from camplug.errors import InputError
from camplug.images.preprocess import Preprocess
from camplug.plug.layers import Selector
from camplug.wsss.class_names import order_like_folder
from camplug.wsss.crf import DenseCRF
from camplug.wsss.data import SegmentationData
from camplug.wsss.pseudo.make import make_labels
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.store.identity import make_file_table, make_photograph_table
from camplug.wsss.store.jobs import Report
from camplug.wsss.store.label_folder import LabelFolder
from camplug.wsss.store.processes import exchange, get_shard, wait_for_processes
from camplug.wsss.train.backbone import Backbone, normalize_pixels
from camplug.wsss.train.crops import LabelCrops, ShuffledSampler, check_label_content, load_label_picture
from camplug.wsss.train.device_state import find_device
from camplug.wsss.train.fit import check_batch, fit
from camplug.wsss.train.folder import CHECKPOINTS, TrainingFolder, describe_labels, find_labelled
from camplug.wsss.train.heads import TITLES, save_heads
from camplug.wsss.train.heads_task import HeadsTask
from camplug.wsss.train.progress import ProgressCallback
from camplug.wsss.train.result import TrainingResult, format_losses
from camplug.wsss.train.unreadable import find_readable, join_broken

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    N = TypeVar("N", bound=LightningModule)
else:
    N = TypeVar("N")


@dataclass
class Trained(TrainingResult[N]):
    """Result of a training of heads.

    Attributes:
        label_settings: settings of the labels; empty for ready-made ones.
        labels: report on the labels, of all processes; None for ready-made ones.
    """

    label_settings: dict[str, Any] = field(default_factory=dict)
    labels: Report | None = None


def train_heads(
    task: HeadsTask[N],
    model: nn.Module,
    data: SegmentationData,
    labels_from: SeedFolder | Path,
    out: Path,
    *,
    watch: ProgressCallback,
    layers: Selector = "stages",
    preprocess: Preprocess | None = None,
    workers: int = 0,
    amp: bool = True,
    allow_missing: bool = False,
    overwrite: bool = False,
    made_with: Mapping[str, Any] | None = None,
) -> Trained[N]:
    """Make labels, train heads on them and write their file; see `train_irn` and `train_affinitynet`.

    Under torchrun every process makes its share of the labels and trains on its share of each batch; the first one
    writes the file, which the others load.
    """
    backbone, training = Backbone(model, layers, preprocess), task.training
    wait_for_processes("training")  # raises early if processes cannot wait for each other
    folder, file = TrainingFolder(out), out / task.file
    data = order_like_folder(folder, data)
    is_made = isinstance(labels_from, SeedFolder)
    crf = None if task.crf is None else asdict(task.crf)
    made_of, recorded = describe_labels(labels_from, {**task.label_settings, "crf": crf})
    folder.prepare_training(
        _describe_training(task, data, backbone, recorded),
        data,
        _compute_tables(data, labels_from),
        file=file,
        steady=task.steady,
        overwrite=overwrite,
    )
    used = task.label_settings if is_made else {}
    if folder.is_finished(file):
        watch.done(f"{file} was there")
        return Trained(task.load(file), file, label_settings=used)
    readable, unreadable = find_readable(data, allow_missing=allow_missing)
    labels = LabelFolder(out / "labels" if isinstance(labels_from, SeedFolder) else labels_from)
    crops = _make_crops(task, data, labels, backbone, allow_missing)  # first, so that wrong options raise at once
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = task.build(backbone)
    report = None
    if isinstance(labels_from, SeedFolder):
        labels.prepare(made_of, overwrite=overwrite)
        report = _make_labels(task, data, labels_from, labels, watch)
    broken = _select_usable(crops, labels, readable, report)
    check_batch(crops, training.batch)
    mend = f"give other {task.thresholds}" if is_made else "give labels that show classes"
    check_label_content(crops.labels, crops.indices, mend)
    folder.write_settings()
    losses = _fit(task, network, crops, out, watch=watch, device=find_device(model), workers=workers, amp=amp)
    if get_shard()[0] == 0:
        task.finish(network, watch)
        state = network.state_dict()
        save_heads(file, task.kind, task.network, state, backbone=backbone, made_with=made_with or {})
    wait_for_processes("heads")
    if get_shard()[0] > 0:
        network = task.load(file)
    watch.done(f"{file}: {TITLES[task.kind]} on {len(backbone.names)} layers")
    broken = join_broken(data, crops.substitutes.list_broken(), broken, unreadable)
    return Trained(network, file, len(crops), losses, broken, used, report)


def _describe_training(
    task: HeadsTask[Any], data: SegmentationData, backbone: Backbone, labels: dict[str, Any]
) -> dict[str, Any]:
    """Return everything that a training depends on, besides its images, as plain data."""
    return {
        "heads": task.kind,
        "classes": list(data.classes),
        "backbone": {
            "weights": backbone.fingerprint(),
            "layers": backbone.names,
            "mean": backbone.preprocess.mean,
            "std": backbone.preprocess.std,
        },
        "labels": labels,
        "network": task.network,
        "training": asdict(task.training),
    }


def _make_crops(
    task: HeadsTask[Any], data: SegmentationData, labels: LabelFolder, backbone: Backbone, allow_missing: bool
) -> LabelCrops:
    """Make the crops of a training; raise InputError where processes cannot share a batch."""
    training, preprocess = task.training, backbone.preprocess
    crops = LabelCrops(
        data,
        partial(load_label_picture, labels.renumber(data.classes), data),
        partial(normalize_pixels, mean=preprocess.mean, std=preprocess.std),  # picklable without the model
        crop=training.crop,
        scales=training.scales,
        stride=task.stride,
        long_side=training.long_side,
        seed=training.seed,
        allow_missing=allow_missing,
    )
    ShuffledSampler(len(crops), batch=training.batch, share=get_shard())
    return crops


def _make_labels(
    task: HeadsTask[Any], data: SegmentationData, seeds: SeedFolder, labels: LabelFolder, watch: ProgressCallback
) -> Report:
    """Make the label pictures, each process its share, and return the report of all processes."""
    rank, world = get_shard()
    with watch.steps("labels", len(range(rank, len(data), world))) as step:
        make = partial(_make_label_picture, task)
        report = make_labels(make, data, seeds, labels, shard=(rank, world), step=lambda _: step())
    report = _merge_reports(report, data)
    watch.done(f"labels: {report.made} made, {report.found} were there")
    return report


def _fit(
    task: HeadsTask[N],
    network: N,
    crops: LabelCrops,
    out: Path,
    *,
    watch: ProgressCallback,
    device: torch.device,
    workers: int,
    amp: bool,
) -> dict[str, float]:
    """Train a network, move it to a device in evaluation mode and return the losses logged last."""
    training = task.training
    losses = fit(
        network,
        crops,
        out / CHECKPOINTS,
        epochs=training.epochs,
        batch=training.batch,
        device=str(device),
        workers=workers,
        progress=watch.bars,
        amp=amp,
    )
    watch.done(
        f"training: {training.epochs} epochs of {len(crops)} images in batches of {training.batch}"
        + (f"; last losses: {format_losses(losses)}" if losses else ", made before")
    )
    network.to(device).eval()  # Lightning leaves it on the CPU
    return losses


def _compute_tables(data: SegmentationData, source: SeedFolder | Path) -> dict[str, dict[str, str]]:
    """Compute the digests of photographs and of seeds or label pictures, by image name."""
    what, file = (
        ("seeds", source.get_path) if isinstance(source, SeedFolder) else ("pictures", LabelFolder(source).get_path)
    )
    return {"photographs": make_photograph_table(data), what: make_file_table(data.ids, file)}


def _merge_reports(mine: Report, data: SegmentationData) -> Report:
    """Merge the reports of all processes, after all have made their share."""
    reports = [Report(**json.loads(text)) for text in exchange("labels", json.dumps(asdict(mine)))]
    errors = {name: error for report in reports for name, error in report.broken}
    broken = [(name, errors[name]) for name in data.ids if name in errors]
    made, found, written = (sum(getattr(report, name) for report in reports) for name in ("made", "found", "bytes"))
    return Report(made, found, written, broken)


def _select_usable(
    crops: LabelCrops, ready: LabelFolder, readable: list[int], report: Report | None
) -> list[tuple[str, str]]:
    """Restrict crops to readable images with labels; return the names of those without, with the reasons.

    Raises:
        InputError: no image is left.
    """
    data = crops.data
    labelled, broken = find_labelled(ready, data)
    if report:  # labels that failed now may exist from an earlier run
        broken, failed = report.broken, {name for name, _ in report.broken}
        labelled = [i for i in labelled if data.ids[i] not in failed]
    crops.indices = sorted({*labelled} & {*readable})
    crops.substitutes.leave_out(readable)
    if not crops.indices:
        first = broken[0][1] if broken else "its photograph cannot be read."
        raise InputError(f"none of the {len(data)} images has labels to train on; the first one: {first}")
    return broken


def _make_label_picture(task: HeadsTask[Any], photo: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Make the labels of a photograph, without a CRF if it has no maps."""
    return task.make_labels(maps, DenseCRF(photo, task.crf) if task.crf is not None and len(maps) else None)
