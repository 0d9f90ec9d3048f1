"""Lightning module that trains a DeepLab network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import override

from camplug.wsss.classifier.freeze import freeze_until
from camplug.wsss.deeplab.crops import SegmentationCrop
from camplug.wsss.deeplab.losses import count_pixels, drop_large_losses, fuse_logits, multiscale_loss, shrink_labels
from camplug.wsss.deeplab.network import DeepLab
from camplug.wsss.deeplab.settings import DeepLabNetworkSettings
from camplug.wsss.deeplab.validation import CLASS_VALIDATION, VALIDATION, MaskedPhoto, ValidationScore
from camplug.wsss.train.device_state import mix_seeds
from camplug.wsss.train.finite import FiniteLosses
from camplug.wsss.train.processes import mean_over_processes


class DeepLabTraining(LightningModule):
    """Training of a DeepLab network on label pictures.

    Args:
        network: network to train.
        settings: settings of the network and its optimizer.
        ids: image names, for error messages.
        seed: seed of the random numbers of every step.
        long_side: longer side that photographs are first resized to, in validation too; None keeps their own size.
    """

    def __init__(
        self,
        network: DeepLab,
        settings: DeepLabNetworkSettings,
        *,
        ids: Sequence[str] = (),
        seed: int = 0,
        long_side: int | None = None,
    ) -> None:
        super().__init__()
        # faster on a CPU; set before DDP fixes the layout of gradients
        self.network = network.to(memory_format=torch.channels_last)
        self.settings, self.finite, self.seed = settings, FiniteLosses(ids), seed
        self.score = ValidationScore(self.network, long_side)
        self.kept = freeze_until(network.body, settings.cut)
        if settings.batch_norm == "fixed":
            norms = [m for m in network.body.modules() if isinstance(m, _BatchNorm)]
            for norm in norms:
                norm.requires_grad_(False)
            self.kept += norms

    def logits(self, x: Tensor) -> list[Tensor]:
        """Compute the logits of normalised images [N,3,S,S] resized by each of `loss_scales` (bilinear)."""
        maps = []
        for scale in self.settings.loss_scales:
            size = (max(1, round(x.shape[2] * scale)), max(1, round(x.shape[3] * scale)))
            view = x if size == tuple(x.shape[2:]) else F.interpolate(x, size, mode="bilinear")
            maps.append(self.network(view.contiguous(memory_format=torch.channels_last)))
        return maps

    @override
    def training_step(self, batch: SegmentationCrop, batch_idx: int) -> Tensor:
        logits = self.logits(batch.image)
        count, labels = len(batch.image), self._drop(logits, batch.labels)
        loss = multiscale_loss(
            logits, labels, balanced=self.settings.loss == "balanced", counts=self._count(logits, labels)
        )
        if self.settings.refinement > 0:
            self.log("cross_entropy", loss.detach(), batch_size=count)
            loss = loss + self._compute_refinement(logits, batch)
        self.finite.add(loss, self.global_step, batch.number)
        self.log("loss", loss.detach(), prog_bar=True, batch_size=count)
        return loss

    @override
    def validation_step(self, batch: list[MaskedPhoto], batch_idx: int) -> None:
        self.score.add(batch)

    @override
    def on_validation_epoch_end(self) -> None:
        mean, of_classes = self.score.compute(self.device)
        self.log(VALIDATION, mean, prog_bar=True)
        if self.logger is not None and self.trainer.is_global_zero:  # as columns of the log only
            named = {f"{CLASS_VALIDATION}{name}": value for name, value in of_classes.items()}
            self.logger.log_metrics({"epoch": float(self.current_epoch), **named}, self.global_step)

    def _drop(self, logits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Return the labels that count in this step, on the first grid if some do not."""
        if not self.settings.drop_large_losses:
            return labels
        risen = min(1.0, 2 * self.global_step / float(self.trainer.estimated_stepping_batches))
        share = self.settings.drop_large_losses * risen
        final = fuse_logits(logits)
        return drop_large_losses(final, shrink_labels(labels, (final.shape[2], final.shape[3])), share)

    def _compute_refinement(self, logits: Sequence[Tensor], batch: SegmentationCrop) -> Tensor:
        """Compute the activation-aware term from the fused logits."""
        from camplug.wsss.deeplab.refinement import activation_aware_loss

        final = fuse_logits(logits)
        size = (final.shape[2], final.shape[3])
        saliency = F.interpolate(batch.saliency[:, None], size, mode="bilinear", antialias=True)[:, 0].clamp(0, 1)
        found = activation_aware_loss(
            final,
            shrink_labels(batch.labels, size),
            saliency,
            alpha=self.settings.refinement,
            threshold=self.settings.saliency_threshold,
            clamped=True,
        )
        means = {"refinement": found.loss, "tau": found.tau.mean(), "conflicts": found.conflicts.mean()}
        self.log_dict({name: value.detach() for name, value in means.items()}, batch_size=len(batch.image))
        return found.loss

    def _count(self, logits: Sequence[Tensor], labels: Tensor) -> list[Tensor]:
        """Count the pixels of each map, averaged over the processes that share the batch."""
        maps = [*logits, logits[0]] if len(logits) > 1 else logits
        own = torch.stack([count_pixels(shrink_labels(labels, (m.shape[2], m.shape[3]))) for m in maps])
        return list(mean_over_processes(own))

    @override
    def on_train_epoch_start(self) -> None:
        torch.manual_seed(mix_seeds(self.seed, self.current_epoch, self.global_rank))  # dropout after a resume

    @override
    def train(self, mode: bool = True) -> DeepLabTraining:
        super().train(mode)
        if mode:
            for module in self.kept:
                module.training = False
        return self

    @override
    def configure_optimizers(self) -> Any:
        settings, head = self.settings, self.network.head
        biases = [p for name, p in head.named_parameters() if name.endswith("bias")]
        weights = [p for name, p in head.named_parameters() if not name.endswith("bias")]
        groups: list[tuple[nn.Module, float]] = [
            (self.network.body, 1.0),
            (nn.ParameterList(weights), settings.head_lr),
            (nn.ParameterList(biases), 2 * settings.head_lr),
        ]
        groups = [(m, f) for m, f in groups if any(p.requires_grad for p in m.parameters())]
        found = settings.schedule.make_optimizers(groups, int(self.trainer.estimated_stepping_batches))
        found["optimizer"].param_groups[-1]["weight_decay"] = 0.0
        return found
