"""Base class of trainings with losses that compare class maps: ramped weights, a warning where maps vanish."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from camplug.wsss.classifier.lightning_module import ClassifierTraining
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.settings import LearningSettings

MIN_POSITIVE = 0.1  # share of an epoch's steps with a map above 0, below which a warning is given


class AgreementTraining(ClassifierTraining):
    """Classifier training with losses between class maps, each divided by its maximum.

    Such a loss is also minimised by maps without values above 0, and the small maps of a new head tend to go there. Its
    weight can therefore rise from 0 (`ramp_factor`), and a warning is given after an epoch with hardly any such map.

    Args:
        network: classifier to train.
        learning: optimizer, schedule and freezing options.
        ramp: part of all steps in which the weights rise from 0, 0 to 1.
        ids: image names, for error messages.
        seed: seed of the random numbers of every step.
    """

    def __init__(
        self, network: Classifier, learning: LearningSettings, ramp: float, *, ids: Sequence[str] = (), seed: int = 0
    ) -> None:
        super().__init__(network, learning, ids=ids, seed=seed)
        self.ramp = ramp
        self.is_positive: list[Tensor] = []  # for each step of this epoch, whether a map had a value above 0

    @property
    def ramp_factor(self) -> float:
        """Factor of the loss weights at this step, 0 to 1."""
        rising = self.ramp * self.steps
        return min(1.0, self.global_step / rising) if rising >= 1 else 1.0

    def record_maps(self, maps: Tensor) -> None:
        """Record whether the class maps of a step, of present classes, have a value above 0."""
        self.is_positive.append((maps.detach() > 0).any())

    @override
    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.is_positive = []

    @override
    def on_train_epoch_end(self) -> None:
        """Warn where nearly all maps of the epoch vanished."""
        if (
            self.is_positive
            and float(torch.stack(self.is_positive).float().mean()) < MIN_POSITIVE
            and self.global_rank == 0
        ):
            warnings.warn(
                f"in epoch {self.current_epoch} hardly any class map has a value above 0: maps of nothing agree, and "
                "the classifier does not learn. Give a ramp such as 0.5 or smaller weights, or start from a trained "
                "classifier.",
                stacklevel=2,
            )
