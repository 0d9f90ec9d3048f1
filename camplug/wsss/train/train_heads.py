"""What the trainings of heads have in common: labels, then training, then a file; each goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.plug import find_first_weight
from camplug.wsss.class_names import order_like_folder
from camplug.wsss.crf import CRFSettings, DenseCRF
from camplug.wsss.data import SegmentationData
from camplug.wsss.pseudo.make import make_labels
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.store.identity import make_file_table, make_photograph_table
from camplug.wsss.store.jobs import Report
from camplug.wsss.store.label_folder import LabelFolder
from camplug.wsss.store.processes import exchange, get_shard, wait_for_processes
from camplug.wsss.train.backbone import Backbone, normalize_pixels
from camplug.wsss.train.crops import LabelCrops, ShuffledSampler, check_label_content, load_label_picture
from camplug.wsss.train.fit import check_batch, fit
from camplug.wsss.train.folder import CHECKPOINTS, TrainingFolder, describe_labels, find_labelled
from camplug.wsss.train.heads import TITLES, Kind, save_heads
from camplug.wsss.train.progress import ProgressCallback
from camplug.wsss.train.settings import TrainSettings
from camplug.wsss.train.unreadable import find_readable, join_broken

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    N = TypeVar("N", bound=LightningModule)
else:
    N = TypeVar("N")


@dataclass
class Trained(Generic[N]):
    """Result of a training.

    Attributes:
        network: on the model's device, in evaluation mode.
        file: of its heads.
        label_settings: what its labels are made with; nothing where ready-made ones were used.
        labels: what became of the labels, by all processes; None where ready-made ones were used.
        images: how many it was trained on.
        losses: losses logged last; empty where the training was finished already.
        broken: names of the images left out, with the reasons.
    """

    network: N
    file: Path
    label_settings: dict[str, Any] = field(default_factory=dict)
    labels: Report | None = None
    images: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class HeadsTask(Generic[N]):
    """What one kind of heads does at each stage.

    Attributes:
        kind: of the heads.
        file: the name of theirs.
        network: its settings, as plain data.
        label_settings: what the labels are made with, as plain data; the CRF comes to it.
        labels: of an image, from its maps [K,H,W] and the dense CRF of its photograph, if there is one.
        crf: that draws labels to the edges; None for none.
        build: the untrained network.
        stride: of its grid.
        finish: what is left to do after training.
        load: the network of a file.
        thresholds: of the labels, in messages.
        steady: see `lengthen_training`.
    """

    kind: Kind
    file: str
    network: dict[str, Any]
    label_settings: dict[str, Any]
    labels: Callable[[NDArray[np.float32], DenseCRF | None], NDArray[np.uint8]]
    crf: CRFSettings | None
    build: Callable[[Backbone], N]
    stride: int
    finish: Callable[[N, ProgressCallback], None]
    load: Callable[[Path], N]
    thresholds: str
    steady: bool


def train_heads(
    stages: HeadsTask[N],
    backbone: Backbone,
    data: SegmentationData,
    labels_from: SeedFolder | Path,
    out: Path,
    *,
    settings: TrainSettings,
    workers: int = 0,
    amp: bool = True,
    allow_missing: bool = False,
    overwrite: bool = False,
    made_with: Mapping[str, Any] | None = None,
    watch: ProgressCallback | None = None,
) -> Trained[N]:
    """Labels, training and the file of heads; see `train_irn` and `train_affinitynet`.

    Under torchrun every process makes the same call: each makes its share of the labels and trains on its share of each
    batch; the first one does what follows, and the others take the heads from its file.
    """
    watch = ProgressCallback() if watch is None else watch
    rank, world = get_shard()
    wait_for_processes("training")  # refuses processes that could not wait later on
    ready = None if isinstance(labels_from, SeedFolder) else LabelFolder(labels_from)
    folder = TrainingFolder(out)
    data = order_like_folder(folder, data)
    crf = None if stages.crf is None else asdict(stages.crf)
    used = stages.label_settings if ready is None else {}
    made_of, told = describe_labels(labels_from, {**stages.label_settings, "crf": crf})
    file = out / stages.file
    folder.prepare_training(
        {
            "heads": stages.kind,
            "classes": list(data.classes),
            "backbone": {
                "weights": backbone.fingerprint(),
                "layers": backbone.names,
                "mean": backbone.preprocess.mean,
                "std": backbone.preprocess.std,
            },
            "labels": told,
            "network": stages.network,
            "training": asdict(settings),
        },
        data,
        _compute_tables(data, labels_from),
        file=file,
        steady=stages.steady,
        overwrite=overwrite,
    )
    if folder.is_finished(file):
        network = stages.load(file)
        watch.done(f"{file} was there")
        return Trained(network, file, used)
    readable, unreadable = find_readable(data, allow_missing=allow_missing)
    crops = LabelCrops(  # before any label is made, so that wrong options are told at once
        data,
        partial(load_label_picture, (ready or LabelFolder(out / "labels")).renumber(data.classes), data),
        partial(normalize_pixels, mean=backbone.preprocess.mean, std=backbone.preprocess.std),  # workers need no model
        crop=settings.crop,
        scales=settings.scales,
        stride=stages.stride,
        long_side=settings.long_side,
        seed=settings.seed,
        allow_missing=allow_missing,
    )
    ShuffledSampler(len(crops), batch=settings.batch, share=(rank, world))  # refuses a batch that cannot be shared
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = stages.build(backbone)
    report = None
    if isinstance(labels_from, SeedFolder):
        ready = LabelFolder(out / "labels")
        ready.prepare(made_of, overwrite=overwrite)
        with watch.steps("labels", len(range(rank, len(data), world))) as step:
            report = make_labels(
                partial(_make_label_picture, stages),
                data,
                labels_from,
                ready,
                shard=(rank, world),
                step=lambda _: step(),
            )
        report = _merge_reports(report, data)
        watch.done(f"labels: {report.made} made, {report.found} were there")
    assert ready is not None
    broken = _select_usable(crops, ready, readable, report)
    check_batch(crops, settings.batch)
    made = isinstance(labels_from, SeedFolder)
    check_label_content(
        crops.labels, crops.indices, f"give other {stages.thresholds}" if made else "give labels that show classes"
    )
    folder.write_settings()
    weight = find_first_weight(backbone.model)
    device = torch.device("cpu") if weight is None else weight.device
    losses = fit(
        network,
        crops,
        out / CHECKPOINTS,
        epochs=settings.epochs,
        batch=settings.batch,
        device=str(device),
        workers=workers,
        progress=watch.bars,
        amp=amp,
    )
    last = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
    watch.done(
        f"training: {settings.epochs} epochs of {len(crops)} images in batches of {settings.batch}"
        + (f"; last losses: {last}" if losses else ", made before")
    )
    network.to(device).eval()  # Lightning leaves it on the CPU
    if rank == 0:
        stages.finish(network, watch)
        state = network.state_dict()
        save_heads(file, stages.kind, stages.network, state, backbone=backbone, made_with=made_with or {})
    wait_for_processes("heads")
    if rank > 0:
        network = stages.load(file)
    watch.done(f"{file}: {TITLES[stages.kind]} on {len(backbone.names)} layers")
    broken = join_broken(data, crops.substitutes.list_broken(), broken, unreadable)
    return Trained(network, file, used, report, len(crops), losses, broken)


def _compute_tables(data: SegmentationData, source: SeedFolder | Path) -> dict[str, dict[str, str]]:
    """The digests of what is learned from, by image name."""
    what, file = (
        ("seeds", source.get_path) if isinstance(source, SeedFolder) else ("pictures", LabelFolder(source).get_path)
    )
    return {"photographs": make_photograph_table(data), what: make_file_table(data.ids, file)}


def _merge_reports(mine: Report, data: SegmentationData) -> Report:
    """The report of all processes together, once all have made their share."""
    told = [Report(**json.loads(text)) for text in exchange("labels", json.dumps(asdict(mine)))]
    errors = {name: error for report in told for name, error in report.broken}
    broken = [(name, errors[name]) for name in data.ids if name in errors]
    made, found, written = (sum(getattr(report, name) for report in told) for name in ("made", "found", "bytes"))
    return Report(made, found, written, broken)


def _select_usable(
    crops: LabelCrops, ready: LabelFolder, readable: list[int], report: Report | None
) -> list[tuple[str, str]]:
    """Take crops of the readable images that have labels; return the names of those without, with the reasons.

    Raises:
        InputError: there is none.
    """
    data = crops.data
    labelled, broken = find_labelled(ready, data)
    if report:  # what could not be made may be there from an earlier run
        broken, failed = report.broken, {name for name, _ in report.broken}
        labelled = [i for i in labelled if data.ids[i] not in failed]
    crops.indices = sorted({*labelled} & {*readable})
    crops.substitutes.leave_out(readable)
    if not crops.indices:
        first = broken[0][1] if broken else "its photograph cannot be read."
        raise InputError(f"none of the {len(data)} images has labels to train on; the first one: {first}")
    return broken


def _make_label_picture(
    stages: HeadsTask[Any], photo: NDArray[np.uint8], maps: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The labels of a photograph; one without classes needs no CRF."""
    return stages.labels(maps, DenseCRF(photo, stages.crf) if stages.crf is not None and len(maps) else None)
