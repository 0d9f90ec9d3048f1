"""Training of DeepLab, from label pictures to a file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from typing_extensions import Unpack, override

from camplug.errors import InputError
from camplug.wsss.class_names import renumber_data
from camplug.wsss.data import SegmentationData
from camplug.wsss.deeplab.checkpoint import DEEPLAB_FILE
from camplug.wsss.deeplab.corrected import REPEAT, CorrectedLabels
from camplug.wsss.deeplab.crops import SegmentationCrops
from camplug.wsss.deeplab.lightning_module import DeepLabTraining
from camplug.wsss.deeplab.network import DeepLab, build_deeplab, get_deeplab_settings
from camplug.wsss.deeplab.settings import DeepLabNetworkSettings, DeepLabSettings
from camplug.wsss.deeplab.validation import MaskedPhotos
from camplug.wsss.saliency_network import SaliencyFolder, write_saliency
from camplug.wsss.saliency_source import SaliencySource
from camplug.wsss.store.identity import hash_weights
from camplug.wsss.store.label_folder import LabelFolder
from camplug.wsss.store.processes import get_shard, wait_for_processes
from camplug.wsss.train.crops import check_label_content
from camplug.wsss.train.fit import check_batch
from camplug.wsss.train.folder import describe_classes
from camplug.wsss.train.label_crops import compute_label_tables, find_trainable, make_label_crops
from camplug.wsss.train.options import TrainOptions
from camplug.wsss.train.result import TrainingResult
from camplug.wsss.train.task import FitInputs, NetworkTask
from camplug.wsss.train.unreadable import Substitutes, find_readable


def train_deeplab(
    model: nn.Module,
    data: SegmentationData,
    labels: str | Path,
    out: str | Path,
    settings: DeepLabSettings | None = None,
    *,
    saliency: str | Path | Literal["contrast", "spectral"] | None = None,
    corrected: str | Path | None = None,
    corrected_repeat: int = REPEAT,
    validation: SegmentationData | None = None,
    **options: Unpack[TrainOptions],
) -> TrainingResult[DeepLab]:
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
        saliency: saliency maps for `settings.network.refinement`: a folder of grey pictures, "contrast" or "spectral",
            which need no model, or the file of a saliency network (see `camplug.wsss.saliency_network.parse_network`),
            whose maps are written to `out`/saliency first.
        corrected: folder of label pictures that replace those of their images; see `CorrectedLabels`.
        corrected_repeat: draws of a corrected image per epoch, each with another crop.
        validation: photographs with masks for the mIoU ("present") of one view after every epoch, which the losses
            contain, too. It changes no weight, and the last weights are kept.
        options: see `TrainOptions`.

    Raises:
        InputError: `out` holds a training of other settings, no image has labels, an option is out of range, or only
            one of saliency and its weight is given.
        ModelError: the model has no feature maps or cannot have the output stride, or the loss became NaN or infinite.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    if not Path(labels).is_dir():
        raise InputError(f"there is no folder of labels {str(labels)!r}.")
    folder = LabelFolder(labels) if corrected is None else CorrectedLabels(labels, corrected, corrected_repeat)
    return DeepLabTask(model, data, folder, out, settings or DeepLabSettings(), saliency, validation, options).run()


class DeepLabTask(NetworkTask[DeepLab]):
    """Training of DeepLab; see `train_deeplab`."""

    name = "deeplab"
    format = DEEPLAB_FILE

    def __init__(  # noqa: PLR0917
        self,
        model: nn.Module,
        data: SegmentationData,
        labels: LabelFolder,
        out: str | Path,
        settings: DeepLabSettings,
        saliency: str | Path | None,
        validation: SegmentationData | None,
        options: TrainOptions,
    ) -> None:
        _check_refinement(saliency, settings.network)
        super().__init__(model, data, out, options)
        self.labels, self.settings = labels, settings
        self.saliency = None if saliency is None else self._open_saliency(saliency)
        self.validation = validation
        if validation is not None:
            self.validation = renumber_data(validation, self.data.classes, "the data to train on")
        self.training, self.is_steady = settings.training, settings.network.schedule.is_steady
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.training.seed)
            preprocess = self.options["preprocess"]
            self.network = build_deeplab(model, self.data.classes, settings.network, preprocess=preprocess)

    @override
    def describe(self) -> dict[str, Any]:
        saliency, labels = self.saliency, self.labels
        corrected = {}
        if isinstance(labels, CorrectedLabels):
            corrected = {"corrected": describe_classes(labels.corrected.path) | {"repeat": labels.repeat}}
        return corrected | {
            "network": get_deeplab_settings(self.network) | {"start": hash_weights(self.network.body)},
            "classes": list(self.data.classes),
            "learning": asdict(self.settings.network),
            "training": asdict(self.training) | {"accumulate": self.settings.accumulate},
            "model": dict(self.made_with),
            "labels": describe_classes(self.labels.path),
            "saliency": None if saliency is None else saliency.settings,
        }

    @override
    def compute_tables(self) -> dict[str, dict[str, str]]:
        tables = compute_label_tables(self.data, self.labels)
        if self.saliency is not None and (found := self.saliency.compute_table()):
            tables["saliency"] = found
        return tables

    @override
    def prepare(self) -> FitInputs:
        data, training, settings = self.data, self.settings.training, self.settings
        allow_missing = self.options["allow_missing"]
        readable, unreadable = find_readable(data, allow_missing=allow_missing)
        preprocess = self.network.preprocess
        crops = make_label_crops(data, self.labels, training, preprocess, allow_missing=allow_missing)
        crops.indices, left_out = find_trainable(data, self.labels, readable, unreadable)
        often, repeat = [], 1
        if isinstance(self.labels, CorrectedLabels):
            often = sorted({*self.labels.find_images(data)} & {*crops.indices})
            repeat = self.labels.repeat
        items = SegmentationCrops(crops, None if self.saliency is None else self.saliency.load, often, repeat)
        items.substitutes.leave_out(readable)
        check_batch(items, training.batch * settings.accumulate)
        check_label_content(crops.labels, crops.indices, "give labels that show classes")
        module = DeepLabTraining(
            self.network, settings.network, ids=data.ids, seed=training.seed, long_side=training.long_side
        )
        unreadable_there: list[tuple[Substitutes[Any], list[tuple[str, str]]]] = [(items.substitutes, left_out)]
        options: dict[str, Any] = {"accumulate": settings.accumulate}
        if self.validation is not None:
            shown, missing = find_readable(self.validation, allow_missing=allow_missing)
            held_out = MaskedPhotos(self.validation, shown, allow_missing)
            options["validation"] = held_out
            unreadable_there.append((held_out.substitutes, missing))
        return FitInputs(module, items, len(crops), training.batch, unreadable_there, options)

    def _open_saliency(self, given: str | Path) -> SaliencySource:
        """Return the source of the saliency maps; those of a network are written first, where they are missing."""
        source = SaliencySource(given, self.data)
        if source.network is None:
            return source
        folder, shard = SaliencyFolder(self.folder.path / "saliency"), get_shard()
        folder.prepare(source.settings, overwrite=self.options["overwrite"])
        with self.watch.steps("saliency maps", len(range(shard[0], len(self.data), shard[1]))) as step:
            report = write_saliency(source.network, self.data, folder, shard=shard, step=lambda _: step())
        wait_for_processes("saliency")
        self.watch.done(f"{folder.path}: {report.made} saliency maps made, {report.found} found")
        return SaliencySource(folder.path, self.data)

    @override
    def describe_network(self, network: DeepLab) -> str:
        return f"DeepLab with the head {network.kind} for {len(network.classes)} classes"


def _check_refinement(given: str | Path | None, settings: DeepLabNetworkSettings) -> None:
    """Raise InputError if only one of saliency and the weight of its term is given."""
    if (given is not None) != (settings.refinement > 0):
        given_what = "saliency without refinement" if given is not None else "refinement without saliency"
        raise InputError(f"{given_what}: the activation-aware term needs both; give both, or neither.")
