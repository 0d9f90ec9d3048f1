"""Lightning module that trains a classifier; base class of all training methods."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics.classification import MultilabelAveragePrecision
from typing_extensions import override

from camplug.wsss.classifier.crops import ClassifierCrop
from camplug.wsss.classifier.freeze import freeze_until
from camplug.wsss.classifier.losses import classification_loss
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.settings import LearningSettings
from camplug.wsss.train.device_state import mix_seeds
from camplug.wsss.train.finite import FiniteLosses

VALIDATION = "val_map"


class ClassifierTraining(LightningModule):
    """Training of a classifier on image-level labels by binary cross-entropy.

    A training-time method overrides `compute_losses`, and `list_learning_parts` where it adds modules that learn.

    Args:
        network: classifier to train.
        learning: optimizer, schedule and freezing options.
        ids: image names, for error messages.
        seed: seed of the random numbers of every step.
    """

    def __init__(
        self, network: Classifier, learning: LearningSettings, *, ids: Sequence[str] = (), seed: int = 0
    ) -> None:
        super().__init__()
        # 1.5 times as fast on a CPU; set before DDP fixes the layout of gradients
        self.network = network.to(memory_format=torch.channels_last)
        self.learning = learning
        self.finite = FiniteLosses(ids)
        self.seed = seed
        self.steps = 0  # of the whole training, set when it starts
        self.frozen = freeze_until(network.body, learning.cut)
        self.average_precision = MultilabelAveragePrecision(
            max(2, len(network.classes)),
            average=None,
            validate_args=False,  # would synchronise with the device at every batch
        )
        mean, std = network.preprocess.mean, network.preprocess.std
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None], persistent=False)

    def compute_losses(self, x: Tensor, batch: ClassifierCrop, step: int) -> Mapping[str, tuple[float, Tensor]]:
        """Return the weight and the value of every loss.

        Args:
            x: normalised images [N,3,S,S].
            batch: the same images as pixels, with labels and numbers.
            step: number of the step in this epoch.
        """
        return {"classification": (1.0, self.compute_classification_loss(self._compute_logits(x), batch.present))}

    def _compute_logits(self, x: Tensor) -> Tensor:
        """Return the logits of the network, averaging class maps in float32 also under autocast."""
        return self.network.logits(self.network.class_maps(self.network.features(x)))

    def list_learning_parts(self) -> list[tuple[nn.Module, float]]:
        """Return the modules that learn, each with the factor of its learning rate."""
        new = self.learning.head_lr
        return [(self.network.body, 1.0), (self.network.neck, new), (self.network.head, new)]

    def compute_classification_loss(self, logits: Tensor, present: Tensor) -> Tensor:
        """Compute the classification loss with the settings of the training."""
        return classification_loss(logits, present, focal=self.learning.focal)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalise pixels [N,3,S,S] in 0 to 255 for the network."""
        x: Tensor = (pixels.to(self.mean, non_blocking=True) - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)

    def make_generator(self, step: int) -> torch.Generator:
        """Make a generator seeded for a step, so that resumed runs draw the same numbers."""
        return torch.Generator().manual_seed(mix_seeds(self.seed, self.current_epoch, step, self.global_rank))

    @override
    def training_step(self, batch: ClassifierCrop, batch_idx: int) -> Tensor:
        parts = self.compute_losses(self.normalize(batch.pixels), batch, batch_idx)
        loss = torch.stack([weight * value for weight, value in parts.values()]).sum()
        self.finite.add(loss, self.global_step, batch.image)
        self.log_dict({name: value.detach() for name, (_, value) in parts.items()}, batch_size=len(batch.image))
        self.log("loss", loss.detach(), prog_bar=True, batch_size=len(batch.image))
        return loss

    @override
    def validation_step(self, batch: ClassifierCrop, batch_idx: int) -> None:
        if not len(batch.image):  # no photograph was readable
            return
        # torchmetrics applies no sigmoid to a batch whose logits all lie in [0, 1]
        logits = self._compute_logits(self.normalize(batch.pixels)).sigmoid()
        present = batch.present.int()
        more = (0, int(logits.shape[1] == 1))  # torchmetrics needs two classes; the added one is never present
        self.average_precision.update(F.pad(logits, more), F.pad(present, more))

    @override
    def on_validation_epoch_end(self) -> None:
        here: Tensor = torch.cat(self.average_precision.target).sum(0)
        shown = torch.as_tensor(self.all_gather(here)).reshape(-1, len(here)).sum(0) > 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about classes without an image, left out below
            precisions = self.average_precision.compute()
        self.average_precision.reset()
        self.log(VALIDATION, precisions[shown].mean(), prog_bar=True)

    @override
    def on_train_epoch_start(self) -> None:
        torch.manual_seed(mix_seeds(self.seed, self.current_epoch, 0, self.global_rank))  # dropout after a resume

    @override
    def train(self, mode: bool = True) -> ClassifierTraining:
        super().train(mode)
        if mode:
            kept = self.frozen
            if self.learning.batch_norm == "fixed":
                kept = kept + [m for m in self.network.body.modules() if isinstance(m, _BatchNorm)]
            for module in kept:
                module.training = False
        return self

    @override
    def configure_optimizers(self) -> Any:
        self.steps = int(self.trainer.estimated_stepping_batches)
        groups = [(m, f) for m, f in self.list_learning_parts() if any(p.requires_grad for p in m.parameters())]
        return self.learning.schedule.make_optimizers(groups, self.steps)
