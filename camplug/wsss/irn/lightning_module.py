"""IRNet: boundaries and object centres of photographs, learned from pseudo-labels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from camplug.wsss.affinity import affinity_loss, find_pairs, make_half_disc
from camplug.wsss.irn.losses import displacement_loss
from camplug.wsss.irn.network import BoundaryHead, DisplacementHead, grid_size
from camplug.wsss.irn.paths import path_affinity
from camplug.wsss.irn.settings import IRNHeadSettings
from camplug.wsss.train import Backbone, Crop, FiniteLosses, pad_to_multiple
from camplug.wsss.train.heads import Kind
from camplug.wsss.train.processes import mean_over_processes


class IRN(LightningModule):
    """Boundary and displacement heads on a frozen backbone (Ahn, Cho & Kwak, CVPR 2019).

    Args:
        backbone: feature maps of a classifier.
        settings: settings of the heads and their training.
    """

    kind: ClassVar[Kind] = "irn"
    settings_type: ClassVar[type[IRNHeadSettings]] = IRNHeadSettings

    def __init__(self, backbone: Backbone, settings: IRNHeadSettings | None = None) -> None:
        super().__init__()
        self.settings = IRNHeadSettings() if settings is None else settings
        make_half_disc(self.settings.radius)  # checks the radius now, not in the first step
        self.backbone = backbone
        self.finite = FiniteLosses()
        self.boundary = BoundaryHead(backbone.channels, backbone.strides)
        self.displacement = (
            DisplacementHead(backbone.channels, backbone.strides, self.settings.width) if self.settings.width else None
        )

    @override
    def configure_optimizers(self) -> Any:
        groups: list[tuple[torch.nn.Module, float]] = [(self.boundary, 1.0)]
        if self.displacement is not None:
            groups.append((self.displacement, self._displacement_lr()))
        return self.settings.schedule.make_optimizers(groups, int(self.trainer.estimated_stepping_batches))

    def _displacement_lr(self) -> float:
        if self.settings.displacement_lr is not None:
            return self.settings.displacement_lr
        return 10.0 if self.settings.schedule.optimizer == "sgd" else 1.0

    @override
    def training_step(self, batch: Crop, batch_idx: int) -> Tensor:
        image, labels = batch
        features, (h, w) = self.backbone(image), labels.shape[-2:]
        pairs = find_pairs(labels, self.settings.radius)
        # float32, since half precision is too coarse near 0 and 1 and for long displacements
        boundary = self.boundary(features)[..., :h, :w].float().sigmoid()  # without the padding to multiples of 32
        affinity = path_affinity(boundary, self.settings.radius)
        counts = mean_over_processes(pairs.count_pairs())
        loss = affinity_loss(affinity, pairs, counts)
        self.log("affinity", loss.detach(), prog_bar=True, sync_dist=True)
        if self.displacement is not None:
            displacement = self.displacement(features)[..., :h, :w].float()
            foreground, background = displacement_loss(displacement, pairs, self.settings.radius, counts)
            parts = {"displacement": foreground.detach(), "displacement_bg": background.detach()}
            self.log_dict(parts, sync_dist=True)
            loss = loss + (foreground + background) / 2
        self.finite.add(loss, self.global_step)
        return loss

    @torch.no_grad()
    def boundaries(self, photo: NDArray[np.uint8]) -> Tensor:
        """Compute the boundaries of a photograph, [h,w] in [0, 1] at stride 4.

        The sigmoid of the mean logits of the photograph and its mirror image. Any size is possible; padding is removed.

        Args:
            photo: RGB uint8 [H,W,3].
        """
        x, (h, w) = self._prepare(photo)
        one, mirrored = self.boundary(self.backbone(torch.cat([x, x.flip(-1)])))
        boundary: Tensor = ((one + mirrored.flip(-1))[:h, :w] / 2).sigmoid()
        return boundary

    @torch.no_grad()
    def displacements(self, photo: NDArray[np.uint8]) -> Tensor | None:
        """Compute the displacements of a photograph, [2,h,w] in grid positions at stride 4; None without that head.

        Args:
            photo: RGB uint8 [H,W,3].
        """
        if self.displacement is None:
            return None
        x, (h, w) = self._prepare(photo)
        displacement: Tensor = self.displacement(self.backbone(x))[0, :, :h, :w]
        return displacement

    def _prepare(self, photo: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
        """Return the input of the backbone and the size of the grid."""
        # padded before mirroring, so that both grids coincide
        return pad_to_multiple(self.backbone.read(photo, self.device)), grid_size(*photo.shape[:2])
