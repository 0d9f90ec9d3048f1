"""Training of one network in a folder: checked, resumed, fitted and stored in the same way for all networks."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from torch import nn
from typing_extensions import override

from camplug.models import MADE_WITH
from camplug.plug import unwrap
from camplug.wsss.class_names import order_like_folder
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.network_file import NetworkFile
from camplug.wsss.store.processes import get_shard, wait_for_processes
from camplug.wsss.train.device_state import find_device, keep_generators
from camplug.wsss.train.fit import Device, Items, choose_precision, fit
from camplug.wsss.train.folder import CHECKPOINTS, TrainingFolder
from camplug.wsss.train.options import LOOP_DEFAULTS, TRAIN_DEFAULTS, TrainOptions, complete_options
from camplug.wsss.train.progress import ProgressCallback
from camplug.wsss.train.result import TrainingResult, format_losses
from camplug.wsss.train.unreadable import Substitutes, join_broken

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from camplug.wsss.classifier.settings import SpanSettings
    from camplug.wsss.train.settings import TrainSettings

N = TypeVar("N", bound=nn.Module)


@dataclass
class FitInputs:
    """Module and items that a training fits.

    Attributes:
        module: module to train.
        items: training items.
        images: number of images behind them.
        batch: items per step.
        unreadable: record of unreadable images, and names and reasons of those left out before, for the training images
            and for validation images.
        options: further options of `fit`.
    """

    module: LightningModule
    items: Items
    images: int
    batch: int
    unreadable: list[tuple[Substitutes[Any], list[tuple[str, str]]]]
    options: dict[str, Any] = field(default_factory=dict)


class TrainingTask(ABC, Generic[N]):
    """Training of one network in a folder.

    Args:
        model: network to start from.
        data: images.
        out: folder.
        options: see `TrainOptions`.

    Attributes:
        name: name of the network's file without ".pt".
        span: key of the settings that contains the epochs.
        training: epochs, batches and crops.
        is_steady: the first epochs do not depend on their total number; see `lengthen_training`.
        data: images, with the classes in the order of the folder's.
        network: network to train; `prepare` sets it at the latest.
    """

    name: ClassVar[Any]
    span: ClassVar[str] = "training"
    training: TrainSettings | SpanSettings
    is_steady: bool
    network: N

    def __init__(self, model: nn.Module, data: SegmentationData, out: str | Path, options: TrainOptions) -> None:
        self.options: TrainOptions = complete_options(options, TRAIN_DEFAULTS)
        self.model, self.device = model, find_device(model)
        self.folder = TrainingFolder(out)
        self.file = self.folder.path / f"{self.name}.pt"
        self.data = order_like_folder(self.folder, data)
        self.watch = self.options["watch"] or ProgressCallback()
        choose_precision(Device.parse(str(self.device)), self.options["dtype"])

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return everything that the training depends on, besides its images, as plain data."""

    @abstractmethod
    def compute_tables(self) -> dict[str, dict[str, str]]:
        """Compute the digests of all inputs by image name; see `Inputs`."""

    @abstractmethod
    def prepare(self) -> FitInputs:
        """Make what is fitted, and check everything that can be checked before."""

    @abstractmethod
    def finish(self, network: N) -> None:
        """Finish and write the trained network, in the first process only."""

    @abstractmethod
    def load(self) -> N:
        """Load the network from its file."""

    @abstractmethod
    def describe_network(self, network: N) -> str:
        """Return what the file holds, for a message."""

    def run(self) -> TrainingResult[N]:
        """Train the network, or load it if the training is finished."""
        folder, options = self.folder, self.options
        folder.prepare_training(
            self.describe() | self._describe_dtype(),
            self.data,
            self.compute_tables(),
            file=self.file,
            span=self.span,
            steady=self.is_steady,
            overwrite=options["overwrite"],
        )
        if folder.is_finished(self.file):
            self.watch.done(f"{self.file} was there")
            return TrainingResult(self.load().to(self.device), self.file)
        with keep_generators(self.device):
            inputs = self.prepare()
            folder.write_settings()
            losses = self._fit(inputs)
        network = self.network.to(self.device).eval().requires_grad_(True)  # Lightning leaves it on the CPU
        if get_shard()[0] == 0:
            self.finish(network)
        wait_for_processes(self.name)  # the file exists when any process returns
        network = self.reload(network)
        self.watch.done(f"{self.file}: {self.describe_network(network)}")
        broken = [
            entry
            for substitutes, left_out in inputs.unreadable
            for entry in join_broken(substitutes.data, substitutes.list_broken(), left_out)
        ]
        return TrainingResult(network, self.file, inputs.images, losses, broken)

    def reload(self, network: N) -> N:
        """Return the trained network as the first process has finished it."""
        return network

    def make_header(self) -> dict[str, Any] | None:
        """Make the header of checkpoints that are network files, too."""
        return None

    def _describe_dtype(self) -> dict[str, Any]:
        """Return the dtype as a setting; empty for a device's default."""
        dtype = self.options["dtype"]
        is_default = dtype == "auto" or (dtype == "float32" and self.device.type == "cpu")
        return {} if is_default else {"dtype": dtype}

    def _fit(self, inputs: FitInputs) -> dict[str, float]:
        """Fit the module and return the losses logged last."""
        epochs, batch = self.training.epochs, self.training.batch
        losses = fit(
            inputs.module,
            inputs.items,
            self.folder.path / CHECKPOINTS,
            epochs=epochs,
            batch=inputs.batch,
            device=str(self.device),
            progress=self.watch.bars,
            watch=None if self.watch.bars else self.watch,
            **{name: self.options[name] for name in LOOP_DEFAULTS},  # type: ignore[literal-required]
            header=self.make_header(),
            **inputs.options,
        )
        self.watch.done(
            f"training: {epochs} epoch{'s' if epochs > 1 else ''} of {inputs.images} images in batches of {batch}"
            + (f"; last losses: {format_losses(losses)}" if losses else ", made before")
        )
        return losses


class NetworkTask(TrainingTask[N]):
    """Training of a network that is stored whole.

    Attributes:
        format: format of its file.
        made_with: specification of the model.
    """

    format: ClassVar[NetworkFile[Any]]

    def __init__(self, model: nn.Module, data: SegmentationData, out: str | Path, options: TrainOptions) -> None:
        super().__init__(model, data, out, options)
        given = self.options["made_with"]
        self.made_with: Mapping[str, Any] = get_made_with(model) if given is None else given

    @override
    def load(self) -> N:
        base = None if self.made_with.get("model") else copy.deepcopy(self.model)
        network: N = self.format.load(self.file, base)
        return network

    @override
    def finish(self, network: N) -> None:
        self.format.save(self.file, network, self.made_with)

    @override
    def reload(self, network: N) -> N:
        setattr(network, MADE_WITH, dict(self.made_with))
        return network

    @override
    def make_header(self) -> dict[str, Any]:
        return self.format.make_header(self.network, self.made_with)


def get_made_with(model: nn.Module) -> dict[str, Any]:
    """Return the specification of a model that `camplug.load_model` built; empty for a module of your own."""
    return dict(getattr(unwrap(model), MADE_WITH, {}))
