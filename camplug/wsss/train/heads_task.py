"""Training of heads on a frozen backbone: labels, training and a file, each resumable."""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from camplug.wsss.crf import CRFSettings, DenseCRF
from camplug.wsss.data import SegmentationData
from camplug.wsss.pseudo.make import make_labels
from camplug.wsss.pseudo.refine import Floats, Photo, resolve_crf
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.store.identity import make_file_table, make_photograph_table
from camplug.wsss.store.jobs import Report
from camplug.wsss.store.label_folder import LabelFolder
from camplug.wsss.store.processes import exchange, get_shard, wait_for_processes
from camplug.wsss.train.backbone import Backbone
from camplug.wsss.train.crops import ShuffledSampler, check_label_content
from camplug.wsss.train.fit import check_batch
from camplug.wsss.train.folder import describe_labels
from camplug.wsss.train.heads import TITLES, load_network, save_heads
from camplug.wsss.train.label_crops import compute_label_tables, find_trainable, make_label_crops
from camplug.wsss.train.options import HeadsOptions, TrainOptions
from camplug.wsss.train.result import TrainingResult
from camplug.wsss.train.settings import TrainSettings
from camplug.wsss.train.task import FitInputs, TrainingTask
from camplug.wsss.train.unreadable import find_readable

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    N = TypeVar("N", bound=LightningModule)
else:
    N = TypeVar("N")


@dataclass
class HeadsResult(TrainingResult[N]):
    """Result of a training of heads.

    Attributes:
        label_settings: settings of the labels; empty for ready-made ones.
        labels: report on the labels, of all processes; None for ready-made ones.
    """

    label_settings: dict[str, Any] = field(default_factory=dict)
    labels: Report | None = None


class HeadsTask(TrainingTask[N]):
    """Training of heads on a frozen backbone, on labels made from seeds or ready-made ones.

    Under torchrun every process makes its share of the labels and trains on its share of each batch; the first one
    writes the file, which the others load.

    Args:
        model: classifier.
        data: photographs; labels and masks are not read.
        labels_from: seeds to make labels from, or a folder of ready-made label pictures.
        out: folder for labels, checkpoints, losses and the heads.
        settings: settings of `settings_type`; None for its defaults.
        options: see `HeadsOptions`.

    Attributes:
        network_type: class of the network, made of a backbone and the settings of the network.
        settings_type: dataclass with the fields `network`, `training` and `crf`.
        stride: stride of the network's grid.
        thresholds: name of the thresholds of the labels, for messages.
    """

    network_type: ClassVar[type[Any]]
    settings_type: ClassVar[type[Any]]
    stride: ClassVar[int]
    thresholds: ClassVar[str]
    training: TrainSettings

    def __init__(  # noqa: PLR0917
        self,
        model: nn.Module,
        data: SegmentationData,
        labels_from: SeedFolder | Path,
        out: str | Path,
        settings: Any | None,
        options: HeadsOptions,
    ) -> None:
        given: TrainOptions = {k: v for k, v in options.items() if k != "layers"}  # type: ignore[assignment]
        super().__init__(model, data, out, given)
        wait_for_processes("training")  # raises early if processes cannot wait for each other
        self.settings = self.settings_type() if settings is None else settings
        self.training, self.labels_from = self.settings.training, labels_from
        self.is_steady = self.settings.network.schedule.is_steady
        self.crf: CRFSettings | None = resolve_crf(self.settings.crf)
        self.label_settings = self.find_label_settings()
        self.backbone = Backbone(model, options.get("layers", "stages"), self.options["preprocess"])
        self.seeds = labels_from if isinstance(labels_from, SeedFolder) else None
        self.labels = LabelFolder(self.folder.path / "labels" if isinstance(labels_from, SeedFolder) else labels_from)
        crf = None if self.crf is None else asdict(self.crf)
        self.made_of, self.recorded = describe_labels(labels_from, {**self.label_settings, "crf": crf})
        self.report: Report | None = None

    @abstractmethod
    def find_label_settings(self) -> dict[str, Any]:
        """Return the settings of the labels without the CRF, as plain data."""

    @abstractmethod
    def label(self, maps: Floats, crf: DenseCRF | None) -> NDArray[np.uint8]:
        """Make the labels of an image from its maps [K,H,W] and the CRF of its photograph."""

    @override
    def describe(self) -> dict[str, Any]:
        backbone = self.backbone
        return {
            "heads": self.name,
            "classes": list(self.data.classes),
            "backbone": {
                "weights": backbone.fingerprint(),
                "layers": backbone.names,
                "mean": backbone.preprocess.mean,
                "std": backbone.preprocess.std,
            },
            "labels": self.recorded,
            "network": asdict(self.settings.network),
            "training": asdict(self.training),
        }

    @override
    def compute_tables(self) -> dict[str, dict[str, str]]:
        if self.seeds is None:
            return compute_label_tables(self.data, self.labels)
        seeds = make_file_table(self.data.ids, self.seeds.get_path)
        return {"photographs": make_photograph_table(self.data), "seeds": seeds}

    @override
    def prepare(self) -> FitInputs:
        data, training, allow_missing = self.data, self.training, self.options["allow_missing"]
        readable, unreadable = find_readable(data, allow_missing=allow_missing)
        # first, so that wrong options raise before labels are made
        preprocess = self.backbone.preprocess
        crops = make_label_crops(
            data, self.labels, training, preprocess, stride=self.stride, allow_missing=allow_missing
        )
        ShuffledSampler(len(crops), batch=training.batch, share=get_shard())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            self.network = self.network_type(self.backbone, self.settings.network)
        mend = "give labels that show classes"
        if self.seeds is not None:
            mend = f"give other {self.thresholds}"
            self.labels.prepare(self.made_of, overwrite=self.options["overwrite"])
            self.report = self._make_labels(self.seeds)
        crops.indices, left_out = find_trainable(data, self.labels, readable, unreadable, self.report)
        crops.substitutes.leave_out(readable)
        check_batch(crops, training.batch)
        check_label_content(crops.labels, crops.indices, mend)
        return FitInputs(self.network, crops, len(crops), training.batch, [(crops.substitutes, left_out)])

    def _make_labels(self, seeds: SeedFolder) -> Report:
        """Make the label pictures, each process its share, and return the report of all processes."""
        rank, world = get_shard()
        with self.watch.steps("labels", len(range(rank, len(self.data), world))) as step:
            shard = (rank, world)
            mine = make_labels(
                self._make_label_picture, self.data, seeds, self.labels, shard=shard, step=lambda _: step()
            )
        reports = [Report(**json.loads(text)) for text in exchange("labels", json.dumps(asdict(mine)))]
        errors = {name: error for report in reports for name, error in report.broken}
        broken = [(name, errors[name]) for name in self.data.ids if name in errors]
        made, found, written = (sum(getattr(report, name) for report in reports) for name in ("made", "found", "bytes"))
        self.watch.done(f"labels: {made} made, {found} were there")
        return Report(made, found, written, broken)

    def _make_label_picture(self, photo: Photo, maps: Floats) -> NDArray[np.uint8]:
        """Make the labels of a photograph, without a CRF if it has no maps."""
        return self.label(maps, DenseCRF(photo, self.crf) if self.crf is not None and len(maps) else None)

    @override
    def finish(self, network: N) -> None:
        save_heads(self.file, network, self.options["made_with"] or {})

    @override
    def load(self) -> N:
        network: N = load_network(self.file, self.model, self.network_type)
        return network

    @override
    def reload(self, network: N) -> N:
        return network if get_shard()[0] == 0 else self.load()

    @override
    def describe_network(self, network: N) -> str:
        return f"{TITLES[self.name]} on {len(self.backbone.names)} layers"

    @override
    def run(self) -> HeadsResult[N]:
        used = {} if self.seeds is None else self.label_settings
        return HeadsResult(**vars(super().run()), label_settings=used, labels=self.report)
