"""Lightning module of attention transfer: similar class maps for three views of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from camplug.wsss.atm.losses import background_similarity_loss, similarity_loss
from camplug.wsss.atm.merge import merge_maps
from camplug.wsss.atm.method import ATM
from camplug.wsss.atm.views import adjust_grey, warn_if_saturated
from camplug.wsss.classifier.agreement import AgreementTraining
from camplug.wsss.classifier.crops import ClassifierCrop
from camplug.wsss.classifier.maps import normalize_maps
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.settings import LearningSettings


class ATMTraining(AgreementTraining):
    r"""Training by attention transfer (Qin et al., TCSVT 2024, section III).

    .. math:: L = L_{cls} + \lambda_s L_s + \lambda_{bs} L_{bs} \qquad (7)

    Both weights can rise from 0, linearly over `ramp` of all steps. The classification loss is the mean over all views.
    The maps are those of the head before pooling, without its bias, of present classes, each divided by its maximum.

    All views form one batch. This equals separate passes, except for trained batch normalisation (always a neck's, the
    body's with `LearningSettings(batch_norm="train")`), whose statistics are those of all views together, also the
    running ones used later for original images.

    With a single adjusted view, its maps are merged with themselves by the same rule. The log contains "merged", the
    share of positions where a merged map is above 0.

    Args:
        network: classifier to train.
        learning: optimizer, schedule and freezing options.
        method: settings of the method.
        ids: image names, for error messages.
        seed: seed of the random numbers of every step.
    """

    def __init__(
        self, network: Classifier, learning: LearningSettings, method: ATM, *, ids: Sequence[str] = (), seed: int = 0
    ) -> None:
        super().__init__(network, learning, method.ramp, ids=ids, seed=seed)
        self.method = method

    @override
    def compute_losses(self, x: Tensor, batch: ClassifierCrop, step: int) -> Mapping[str, tuple[float, Tensor]]:
        """Return the weight and the value of every loss; see `ClassifierTraining`."""
        method, changes = self.method, self.method.changes
        if not changes:
            return super().compute_losses(x, batch, step)
        views = torch.cat([x, *self.make_views(batch, step)])
        maps = self.network.class_maps(self.network.features(views))
        every = batch.present.repeat(1 + len(changes), 1)
        losses = {"classification": (1.0, self.compute_classification_loss(self.network.logits(maps), every))}
        original, *others = normalize_maps(maps, every).chunk(1 + len(changes))
        self.record_maps(original)
        first, last = others[0], others[-1]  # the same view if only one is enabled
        if method.similarity:
            value = similarity_loss(original, first, last, batch.present, average=method.average)
            losses["similarity"] = (self.ramp_factor * method.similarity, value)
        if method.background_similarity:
            merged = merge_maps(first, last, batch.present, background=method.background, sure=method.sure)
            value = background_similarity_loss(
                original, merged, batch.present, foreground=method.planes == "all", average=method.average
            )
            losses["background_similarity"] = (self.ramp_factor * method.background_similarity, value)
            self.log("merged", (merged.amax(1) > 0).float().mean(), batch_size=len(batch.image))
        return losses

    def make_views(self, batch: ClassifierCrop, step: int) -> list[Tensor]:
        """Make the adjusted views of a batch, normalised; warn in the first step where they saturate."""
        if step == self.current_epoch == self.global_rank == 0:
            for change in self.method.changes:
                warn_if_saturated(batch.pixels, change)
        return [self.normalize(adjust_grey(batch.pixels, change)) for change in self.method.changes]
