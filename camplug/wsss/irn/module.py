"""IRNet: trained on pseudo-labels, it tells boundaries and object centres of a photograph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from camplug.wsss.affinity import affinity_loss, half_disc, pairs_of
from camplug.wsss.irn.losses import displacement_loss
from camplug.wsss.irn.network import BoundaryHead, DisplacementHead, grid_size
from camplug.wsss.irn.paths import path_affinity
from camplug.wsss.train import Backbone, Crop, Schedule, filled, refuse_nan


@dataclass(frozen=True)
class IRNSettings:
    """How IRNet is built and trained.

    Args:
        radius: pairs closer than this many grid positions are compared in training.
        width: channels of the displacement head; 0 leaves it out, and with it instances.
        schedule: of the boundary head.
        displacement_lr: the displacement head's learning rate relative to it.
    """

    radius: int = 10
    width: int = 256
    schedule: Schedule = field(default_factory=Schedule)
    displacement_lr: float = 10.0


class IRN(LightningModule):
    """The boundary and the displacement head over a frozen backbone (Ahn, Cho & Kwak, CVPR 2019).

    Args:
        backbone: any classifier's feature maps.
        settings: how it is built and trained.
    """

    def __init__(self, backbone: Backbone, settings: IRNSettings | None = None) -> None:
        super().__init__()
        self.settings = IRNSettings() if settings is None else settings
        half_disc(self.settings.radius)  # refuses a wrong radius here, not in the first step
        self.backbone = backbone
        self.boundary = BoundaryHead(backbone.channels, backbone.strides)
        self.displacement = (
            DisplacementHead(backbone.channels, backbone.strides, self.settings.width) if self.settings.width else None
        )

    @override
    def configure_optimizers(self) -> Any:
        groups: list[tuple[torch.nn.Module, float]] = [(self.boundary, 1.0)]
        if self.displacement is not None:
            groups.append((self.displacement, self.settings.displacement_lr))
        return self.settings.schedule.optimizers(groups, int(self.trainer.estimated_stepping_batches))

    @override
    def training_step(self, batch: Crop, batch_idx: int) -> Tensor:
        image, labels = batch
        features = self.backbone(image)
        pairs = pairs_of(labels, self.settings.radius)
        affinity = path_affinity(self.boundary(features).sigmoid(), self.settings.radius)
        loss = affinity_loss(affinity, pairs)
        self.log("affinity", loss.detach(), prog_bar=True)
        if self.displacement is not None:
            foreground, background = displacement_loss(self.displacement(features), pairs, self.settings.radius)
            self.log_dict({"displacement": foreground.detach(), "displacement_bg": background.detach()})
            loss = loss + (foreground + background) / 2
        refuse_nan(loss, self.global_step)
        return loss

    @torch.no_grad()
    def look(self, photo: NDArray[np.uint8], *, mirrored: bool = True) -> tuple[Tensor, Tensor | None]:
        """The boundaries [h,w] in [0, 1] and the displacements [2,h,w] of a photograph, at stride 4.

        Boundaries are the sigmoid of the mean logits of the photograph and its mirror image. Any size is possible:
        sides are filled up to whole positions only, and what is filled is cut away.

        Args:
            photo: RGB uint8 [H,W,3].
            mirrored: whether the mirror image is asked, too.
        """
        pixels = torch.from_numpy(np.array(photo)).to(self.device).permute(2, 0, 1)
        x = filled(self.backbone.normalized(pixels)[None])  # before mirroring, so that the grids fall on each other
        h, w = grid_size(*photo.shape[:2])
        features = self.backbone(x)
        logits = self.boundary(features)
        if mirrored:
            logits = (logits + self.boundary(self.backbone(x.flip(-1))).flip(-1)) / 2
        displacement = None if self.displacement is None else self.displacement(features)[0, :, :h, :w]
        return logits[0, :h, :w].sigmoid(), displacement
