"""Lightning module of FPR: prototypes are computed before every epoch."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import override

from camplug.wsss.classifier.crops import ClassifierCrop, ClassifierCrops
from camplug.wsss.classifier.lightning_module import ClassifierTraining
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.settings import LearningSettings
from camplug.wsss.fpr.gather import PrototypePass
from camplug.wsss.fpr.groups import describe_unusable
from camplug.wsss.fpr.losses import region_contrast_loss
from camplug.wsss.fpr.pixels import pixel_rectification_loss
from camplug.wsss.fpr.prototypes import Prototypes
from camplug.wsss.train.processes import get_rank_and_world

if TYPE_CHECKING:
    from camplug.wsss.fpr.method import FPR


class FPRTraining(ClassifierTraining):
    r"""Training of a classifier by three losses.

    .. math:: L = L_{BCE} + \lambda_1 L_{RC} + \lambda_2 L_{PR}

    (Chen et al., ICCV 2023, eq. 9.) The prototypes of an epoch depend only on the weights at its start, so checkpoints
    do not contain them and resumed runs compute them again. With several processes the losses are means over the
    regions and pixels of all of them.

    The log also contains the numbers of regions ("pairs" of an image and a class) and of false-positive pixels
    ("false_positives") of the process.

    Args:
        network: trained classifier.
        learning: optimizer, schedule and freezing options.
        fpr: settings of the method.
        crops: crops of the training, from whose photographs prototypes are computed, too.

    Attributes:
        prototypes: prototypes of this epoch; None before the first one, and where no loss needs them.

    Raises:
        InputError: the groups do not fit the classes, or scikit-learn is not installed.
    """

    def __init__(self, network: Classifier, learning: LearningSettings, fpr: FPR, crops: ClassifierCrops) -> None:
        super().__init__(network, learning, ids=crops.data.ids, seed=crops.seed)
        self.fpr, self.crops = fpr, crops
        self.prototypes: Prototypes | None = None
        self.gather: PrototypePass | None = None
        self._labels = torch.empty(0), torch.empty(0)  # of the last batch, on the device and on the host
        if fpr.needs_prototypes:
            self.gather = PrototypePass(
                crops,
                clusters=fpr.clusters,
                negatives=fpr.negatives,
                theta=fpr.theta,
                groups=fpr.group_numbers(crops.data.classes),
                scales=fpr.pass_scales,
                flip=fpr.pass_flip,
            )

    @override
    def transfer_batch_to_device(
        self, batch: ClassifierCrop, device: torch.device, dataloader_idx: int
    ) -> ClassifierCrop:
        """Keep the labels on the host, too, since the losses need them without synchronising with the device."""
        moved: ClassifierCrop = super().transfer_batch_to_device(batch, device, dataloader_idx)
        self._labels = moved.present, batch.present
        return moved

    def _on_host(self, present: Tensor) -> Tensor:
        """Return the host's copy of the labels of the last batch; others unchanged."""
        there, here = self._labels
        return here if there is present else present

    @property
    def passes(self) -> int:
        """Number of passes for prototypes so far."""
        return 0 if self.gather is None else self.gather.passes

    @override
    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.gather is None:
            return
        workers = getattr(self.trainer.train_dataloader, "num_workers", 0)
        with self.trainer.precision_plugin.forward_context():
            self.prototypes = self.gather(self.network, self.normalize, workers=workers).to(self.device)
        if self.passes == 1 and self.fpr.pixel_rectification and self.global_rank == 0:
            self._warn_about_unusable(self.prototypes)

    def _warn_about_unusable(self, prototypes: Prototypes) -> None:
        shown = Counter(c for i in self.crops.indices for c in self.crops.get_classes(i))
        counts = [shown[c] for c in range(len(self.network.classes))]
        text = describe_unusable(self.network.classes, counts, [bool(kept.any()) for kept in prototypes.usable])
        if text:
            warnings.warn(text, stacklevel=2)

    @override
    def compute_losses(self, x: Tensor, batch: ClassifierCrop, step: int) -> Mapping[str, tuple[float, Tensor]]:
        if self.gather is None:
            return super().compute_losses(x, batch, step)
        assert self.prototypes is not None  # gathered before the first step
        features = self.network.features(x)
        maps = self.network.class_maps(features)
        parts = {"classification": (1.0, self.compute_classification_loss(self.network.logits(maps), batch.present))}
        theta, present = self.fpr.theta, self._on_host(batch.present)
        if self.fpr.region_contrast:
            contrast = region_contrast_loss(
                features,
                maps,
                present,
                self.prototypes,
                theta=theta,
                temperature=self.fpr.temperature,
                offset=self.fpr.offset,
                distance=self.fpr.distance,
            )
            parts["region_contrast"] = self.fpr.region_contrast, contrast.loss * compute_share(contrast.pairs)
            parts["pairs"] = 0.0, contrast.pairs.float()  # to be logged
        if self.fpr.pixel_rectification:
            pixels = pixel_rectification_loss(features, maps, present, self.prototypes, theta=theta)
            parts["pixel_rectification"] = self.fpr.pixel_rectification, pixels.loss * compute_share(pixels.pixels)
            parts["false_positives"] = 0.0, pixels.pixels.float()
        return parts


def compute_share(count: Tensor) -> Tensor:
    """Compute the factor that makes the mean over processes a mean over all items, given their number here."""
    if get_rank_and_world()[1] == 1:
        return torch.ones((), device=count.device)
    total = count.clone()
    dist.all_reduce(total)
    return count * get_rank_and_world()[1] / total.clamp_min(1)
