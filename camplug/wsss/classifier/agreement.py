"""Training by losses that compare class maps with each other: weights that may rise, and a word where maps vanish."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from camplug.wsss.classifier.lightning_module import ClassifierTraining
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.settings import LearningSettings

DEAD = 0.1  # of an epoch's steps have a map above 0


class AgreementTraining(ClassifierTraining):
    """Trains a classifier whose class maps, each divided by its maximum, shall agree with others.

    Maps without any value above 0 agree, too, and of a new head, whose maps are small, that is where such a loss leads.
    So its weight may rise from 0 (`risen`), and an epoch of hardly any map is told.

    Args:
        network: what is trained.
        learning: how.
        ramp: part of all steps over which the weights rise from 0, 0 to 1.
        ids: the images' names, to be told where a loss is no number.
        seed: of everything random in a step.
    """

    def __init__(
        self, network: Classifier, learning: LearningSettings, ramp: float, *, ids: Sequence[str] = (), seed: int = 0
    ) -> None:
        super().__init__(network, learning, ids=ids, seed=seed)
        self.ramp = ramp
        self.alive: list[Tensor] = []  # of this epoch's steps: whether any map was above 0

    @property
    def risen(self) -> float:
        """How much of their weights the losses of this step have, 0 to 1."""
        rising = self.ramp * self.steps
        return min(1.0, self.global_step / rising) if rising >= 1 else 1.0

    def seen(self, maps: Tensor) -> None:
        """Remember whether a step's class maps, of what the images show, have a value above 0."""
        self.alive.append((maps.detach() > 0).any())

    @override
    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.alive = []

    @override
    def on_train_epoch_end(self) -> None:
        """Tell of maps that agree because nothing is left of them."""
        if self.alive and float(torch.stack(self.alive).float().mean()) < DEAD and self.global_rank == 0:
            warnings.warn(
                f"in epoch {self.current_epoch} hardly any class map has a value above 0: maps of nothing agree, and "
                "the classifier does not learn. Give a ramp such as 0.5 or smaller weights, or start from a trained "
                "classifier.",
                stacklevel=2,
            )
