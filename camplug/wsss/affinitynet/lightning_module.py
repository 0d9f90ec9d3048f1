"""AffinityNet: affinities of positions, learned from the confident parts of activation maps."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from camplug.wsss.affinity import SparseAffinity, affinity_loss, find_pairs, make_half_disc
from camplug.wsss.affinitynet.affinities import feature_affinity
from camplug.wsss.affinitynet.network import FeatureHead, grid_size
from camplug.wsss.affinitynet.settings import AffinityNetHeadSettings
from camplug.wsss.train import Backbone, Crop, FiniteLosses, pad_to_multiple
from camplug.wsss.train.heads import Kind
from camplug.wsss.train.processes import mean_over_processes


class AffinityNet(LightningModule):
    """Feature head on a frozen backbone (Ahn & Kwak, CVPR 2018, who train the backbone, too).

    Args:
        backbone: feature maps of a classifier.
        settings: settings of the head and its training.

    Raises:
        InputError: the radius or the width is not possible.
    """

    kind: ClassVar[Kind] = "affinitynet"
    settings_type: ClassVar[type[AffinityNetHeadSettings]] = AffinityNetHeadSettings

    def __init__(self, backbone: Backbone, settings: AffinityNetHeadSettings | None = None) -> None:
        super().__init__()
        self.settings = AffinityNetHeadSettings() if settings is None else settings
        make_half_disc(self.settings.radius)  # checks the radius now, not in the first step
        self.backbone = backbone
        self.finite = FiniteLosses()
        self.head = FeatureHead(backbone.channels, self.settings.width)

    @override
    def configure_optimizers(self) -> Any:
        return self.settings.schedule.make_optimizers([(self.head, 1.0)], int(self.trainer.estimated_stepping_batches))

    @override
    def forward(self, image: Tensor) -> Tensor:
        """Compute features [N,C,h,w] at stride 8, float32, from normalised images [N,3,H,W] of any size."""
        x = pad_to_multiple(image)
        features: Tensor = self.head(self.backbone(x), grid_size(*x.shape[-2:]))
        h, w = grid_size(*image.shape[-2:])
        return features[..., :h, :w].float()  # half precision is too coarse for the loss near 0 and 1

    @override
    def training_step(self, batch: Crop, batch_idx: int) -> Tensor:
        image, labels = batch
        radius = self.settings.radius
        pairs = find_pairs(labels, radius)
        loss = affinity_loss(feature_affinity(self(image), radius), pairs, mean_over_processes(pairs.count_pairs()))
        self.log("affinity", loss.detach(), prog_bar=True, sync_dist=True)
        self.finite.add(loss, self.global_step)
        return loss

    @torch.no_grad()
    def affinities(self, photo: NDArray[np.uint8]) -> SparseAffinity:
        """Compute the affinities of a photograph at stride 8.

        Any size is possible; padding is removed.

        Args:
            photo: RGB uint8 [H,W,3].

        Raises:
            InputError: another shape or dtype.
        """
        features = self(self.backbone.read(photo, self.device))
        radius = self.settings.radius
        return SparseAffinity.from_pairs(feature_affinity(features, radius)[0], make_half_disc(radius))
