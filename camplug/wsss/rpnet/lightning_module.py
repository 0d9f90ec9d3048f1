"""Lightning module of RPNet: the plain branch learns the class maps of the enhanced one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from typing_extensions import override

from camplug.errors import InputError, ModelError
from camplug.wsss.classifier.agreement import AgreementTraining
from camplug.wsss.classifier.crops import ClassifierCrop
from camplug.wsss.classifier.maps import normalize_maps
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.settings import LearningSettings
from camplug.wsss.rpnet.comparison import foreground_probability
from camplug.wsss.rpnet.losses import average_maps, self_supervised_loss
from camplug.wsss.rpnet.method import LAST, RPNet
from camplug.wsss.rpnet.neck import RegionNeck
from camplug.wsss.rpnet.regions import find_confident_regions
from camplug.wsss.rpnet.stages import compute_stage_maps, find_stage_layers

MULTIPLE = 32  # divisor of the sides of rescaled images, so that any network accepts them


class RPNetTraining(AgreementTraining):
    r"""Training by region prototypes, RPNet (Liu et al., IEEE Transactions on Multimedia).

    .. math:: L = L_c + \lambda L_s, \qquad L_s = \overline{(S - R)^2} \qquad (11, 13)

    The plain branch is used for inference: reduced features, non-local block, head. Its logits get the classification
    loss, its normalised class maps are R. The enhanced branch weighs the reduced features by the foreground probability
    before a non-local block of its own and the same head; S is the mean of its maps over the scales, of which only 1
    has a gradient. Maps of stages before the last have none. Confident regions are computed from the reduced features
    or from the plain branch's class maps, whatever the stages of the prototypes. Without prototypes the features are
    weighed by 1, and the branches differ in their blocks and in the scales of S.

    The weight can rise from 0, linearly over `ramp` of all steps. The body runs once per scale; only the plain branch
    at scale 1 updates running statistics. The log contains the share of positions in confident regions ("confident")
    and the mean foreground probability ("foreground"), both at scale 1.

    Args:
        network: classifier to train, with a `RegionNeck`.
        learning: optimizer, schedule and freezing options.
        method: settings of the method.
        ids: image names, for error messages.
        seed: seed of the random numbers of every step.

    Raises:
        InputError: the network does not have a stage.
        ModelError: the network has another neck.
    """

    def __init__(
        self, network: Classifier, learning: LearningSettings, method: RPNet, *, ids: Sequence[str] = (), seed: int = 0
    ) -> None:
        super().__init__(network, learning, method.ramp, ids=ids, seed=seed)
        if not isinstance(network.neck, RegionNeck):
            raise ModelError(
                f"RPNet trains a classifier with a RegionNeck, this one has {type(network.neck).__name__}; build it "
                "with over(model, classes, neck=method.get_neck_settings())."
            )
        self.method = method
        earlier = [stage for stage in method.stage_names if stage != LAST]
        self.stages = find_stage_layers(network.body, earlier) if method.weight and method.prototypes else []

    @property
    def neck(self) -> RegionNeck:
        """Neck of the network."""
        return cast(RegionNeck, self.network.neck)

    @override
    def training_step(self, batch: ClassifierCrop, batch_idx: int) -> Tensor:
        """Flatten groups, pixels [B,k,3,S,S], to a batch of B*k images and compute the loss."""
        return super().training_step(ClassifierCrop(*(part.flatten(0, 1) for part in batch)), batch_idx)

    @override
    def compute_losses(self, x: Tensor, batch: ClassifierCrop, step: int) -> Mapping[str, tuple[float, Tensor]]:
        """Return the weight and the value of every loss; images g*k .. g*k + k-1 are one group."""
        method = self.method
        reduced, earlier = self._features(x)
        plain = self.network.class_maps(self.neck.context(reduced))
        losses = {"classification": (1.0, self.compute_classification_loss(self.network.logits(plain), batch.present))}
        if not method.weight:
            return losses
        generator = self.make_generator(step)
        with _keep_statistics(self.network):
            # scale 1 first: autocast caches the half-precision weights, which must have a gradient
            maps = [self._enhanced(reduced, earlier, batch.present, generator, log=True)]
            with torch.no_grad():
                for scale in method.scales:
                    if scale != 1:
                        rescaled = self._features(self.rescale_view(x, batch, scale))
                        maps.append(self._enhanced(*rescaled, batch.present, generator))
        target = average_maps(maps, (plain.shape[-2], plain.shape[-1]))
        value = self_supervised_loss(target, plain, batch.present)
        self.record_maps(normalize_maps(plain, batch.present))
        return losses | {"self_supervised": (self.ramp_factor * method.weight, value)}

    def rescale_view(self, x: Tensor, batch: ClassifierCrop, scale: float) -> Tensor:
        """Return the normalised images of a batch in another size."""
        return rescale(x, scale)

    def _features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute the reduced features [N,width,h,w] and the maps of the earlier stages [N,D,h,w]."""
        last, earlier = compute_stage_maps(self.network, x, self.stages)
        if last.shape[0] * last.shape[2] * last.shape[3] < 2:
            raise InputError(
                f"one image of {x.shape[-1]} pixels has a map of one position, which a batch normalisation cannot "
                "learn from; give a larger batch, crop or scale."
            )
        return self.neck.reduce_channels(last), earlier

    def _enhanced(
        self,
        reduced: Tensor,
        earlier: list[Tensor],
        present: Tensor,
        generator: torch.Generator,
        log: bool = False,
    ) -> Tensor:
        """Compute the class maps of the enhanced branch."""
        if self.method.prototypes:
            reduced = self._compute_foreground(reduced, earlier, present, generator, log) * reduced
        return self.network.class_maps(self.neck.enhance(reduced))

    def _compute_foreground(
        self, reduced: Tensor, earlier: list[Tensor], present: Tensor, generator: torch.Generator, log: bool
    ) -> Tensor:
        """Compute the foreground probability [N,1,h,w]."""
        method = self.method
        region = self._region(reduced, present)
        probability = foreground_probability(
            [*([reduced] if LAST in method.stage_names else []), *earlier],
            region=region,
            group=method.images,
            keep=method.random_part,
            scale=method.scale,
            border=method.border,
            generator=generator,
            smooth=method.smooth,
            drop=method.random_part < 1,
        )
        if log:
            shares = {"confident": region.float().mean(), "foreground": probability.detach().mean()}
            self.log_dict(shares, batch_size=len(reduced))
        return probability

    @torch.no_grad()
    def _region(self, reduced: Tensor, present: Tensor) -> Tensor:
        """Compute the confident positions, bool [N,h,w]."""
        if self.method.regions == "channels":
            return find_confident_regions(reduced, self.method.threshold)
        maps = self.network.class_maps(self.neck.context(reduced))
        region: Tensor = normalize_maps(maps, present).amax(1) >= self.method.threshold
        return region


def rescale(x: Tensor, scale: float) -> Tensor:
    """Resize images by a factor, with sides rounded to multiples of 32, at least 32."""
    h, w = (max(MULTIPLE, MULTIPLE * round(side * scale / MULTIPLE)) for side in x.shape[-2:])
    return F.interpolate(x, (h, w), mode="bilinear", align_corners=False)


@contextmanager
def _keep_statistics(network: nn.Module) -> Iterator[None]:
    """Leave running statistics unchanged while normalising by the batch."""
    tracking = [m for m in network.modules() if isinstance(m, _NormBase) and m.training and m.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
