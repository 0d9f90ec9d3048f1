"""Training a classifier with Lightning; the base of all methods that train one."""

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

from camplug.wsss.classifier.crops import Picture
from camplug.wsss.classifier.losses import classification_loss
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.settings import LearningSettings, freeze
from camplug.wsss.train.finite import FiniteLosses

VALIDATION = "val_map"


class ClassifierTraining(LightningModule):
    """Trains a classifier on image-level labels by binary cross-entropy.

    A training-time method overrides `losses`, and `parts` where it brings parts of its own that learn.

    Args:
        network: what is trained.
        learning: how.
        ids: the images' names, to be told where a loss is no number.
        seed: of everything random in a step.
    """

    def __init__(
        self, network: Classifier, learning: LearningSettings, *, ids: Sequence[str] = (), seed: int = 0
    ) -> None:
        super().__init__()
        # 1.5 times as fast on a CPU; before several processes agree on how gradients lie in memory
        self.network = network.to(memory_format=torch.channels_last)
        self.learning = learning
        self.finite = FiniteLosses(ids)
        self.seed = seed
        self.steps = 0  # of the whole training, once it has begun
        self.frozen = freeze(network.body, learning.cut)
        self.average_precision = MultilabelAveragePrecision(
            max(2, len(network.classes)),
            average=None,
            validate_args=False,  # it would wait for every batch
        )
        mean, std = network.preprocess.mean, network.preprocess.std
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None], persistent=False)

    def losses(self, x: Tensor, batch: Picture, step: int) -> Mapping[str, tuple[float, Tensor]]:
        """The weight and the value of every loss.

        Args:
            x: the normalised images [N,3,S,S].
            batch: them as pixels, with labels and numbers.
            step: of this epoch.
        """
        return {"classification": (1.0, self.classification(self._logits(x), batch.present))}

    def _logits(self, x: Tensor) -> Tensor:
        """The network's, with class maps averaged in float32 also in autocast."""
        return self.network.logits(self.network.class_maps(self.network.features(x)))

    def parts(self) -> list[tuple[nn.Module, float]]:
        """What learns, with its learning rate relative to the schedule's."""
        new = self.learning.head_lr
        return [(self.network.body, 1.0), (self.network.neck, new), (self.network.head, new)]

    def classification(self, logits: Tensor, present: Tensor) -> Tensor:
        """The classification loss as these settings want it."""
        return classification_loss(logits, present, focal=self.learning.focal)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Pixels [N,3,S,S] in 0 to 255 as the network reads them."""
        x: Tensor = (pixels.to(self.mean, non_blocking=True) - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)

    def generator(self, step: int) -> torch.Generator:
        """A generator of a step's own, so that a resumed run draws what an uninterrupted one draws."""
        numbers = (self.seed, self.current_epoch, step, self.global_rank)
        return torch.Generator().manual_seed(_mixed(numbers))

    @override
    def training_step(self, batch: Picture, batch_idx: int) -> Tensor:
        parts = self.losses(self.normalized(batch.pixels), batch, batch_idx)
        loss = torch.stack([weight * value for weight, value in parts.values()]).sum()
        self.finite.add(loss, self.global_step, batch.image)
        self.log_dict({name: value.detach() for name, (_, value) in parts.items()}, batch_size=len(batch.image))
        self.log("loss", loss.detach(), prog_bar=True, batch_size=len(batch.image))
        return loss

    @override
    def validation_step(self, batch: Picture, batch_idx: int) -> None:
        if not len(batch.image):  # none of its photographs could be read
            return
        # sigmoids: of a batch whose logits all lie in 0 to 1, torchmetrics would take none
        logits = self._logits(self.normalized(batch.pixels)).sigmoid()
        present = batch.present.int()
        more = (0, int(logits.shape[1] == 1))  # torchmetrics takes no single class; this one is never shown
        self.average_precision.update(F.pad(logits, more), F.pad(present, more))

    @override
    def on_validation_epoch_end(self) -> None:
        here: Tensor = torch.cat(self.average_precision.target).sum(0)
        shown = torch.as_tensor(self.all_gather(here)).reshape(-1, len(here)).sum(0) > 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on classes without an image, which are left out
            precisions = self.average_precision.compute()
        self.average_precision.reset()
        self.log(VALIDATION, precisions[shown].mean(), prog_bar=True)

    @override
    def on_train_epoch_start(self) -> None:
        torch.manual_seed(_mixed((self.seed, self.current_epoch, 0, self.global_rank)))  # dropout after a resume

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
        groups = [(m, f) for m, f in self.parts() if any(p.requires_grad for p in m.parameters())]
        return self.learning.schedule.optimizers(groups, self.steps)


def _mixed(numbers: tuple[int, ...]) -> int:
    """One seed of several numbers."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
