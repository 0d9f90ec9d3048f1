"""Maps of several explainers on one batch, and the metrics of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from camplug.explain.base import Explainer
from camplug.explain.inputs import Batch
from camplug.trust.concentration import complexity, sparseness
from camplug.trust.confidence import confidence_drop, confidence_gain, confidence_increase, mask_images
from camplug.trust.curves import STEPS, area_under_curve, replace_in_order
from camplug.trust.localization import energy_pointing_game, pointing_game
from camplug.trust.perturb import Baseline, make_baseline, rank_pixels
from camplug.trust.randomize import STAGES, cascade, explain_classes
from camplug.trust.registry import register_metric
from camplug.trust.road import FRACTIONS, road
from camplug.trust.robustness import infidelity, max_sensitivity
from camplug.trust.score import BATCH_SIZE, ClassScore, score_in_batches, take_images


@dataclass(frozen=True)
class Settings:
    """Settings of the metrics.

    Attributes:
        steps: number of steps of the deletion and insertion curves.
        deletion_baseline, insertion_baseline: see `make_baseline`.
        fractions: shares of removed pixels of ROAD.
        noise: standard deviation of the noise of ROAD.
        samples: number of squares of the infidelity, and of noisy images of the max-sensitivity.
        radius: largest noise of the max-sensitivity.
        stages: number of stages of the randomisation.
        tolerance: tolerance of the pointing game, in pixels.
        batch_size: largest number of changed images in one pass.
        seed: seed of all random numbers.
    """

    steps: int = STEPS
    deletion_baseline: Baseline = "zero"
    insertion_baseline: Baseline = "blur"
    fractions: Sequence[float] = FRACTIONS
    noise: float = 0.01
    samples: int = 10
    radius: float = 0.02
    stages: int = STAGES
    tolerance: int = 0
    batch_size: int = BATCH_SIZE
    seed: int = 0


@dataclass
class Trial:
    """Maps of K explainers of one model on N images, and what the metrics share.

    Attributes:
        explainers: K explainers.
        batch: images with the model's other inputs.
        score: probability of the class of each image.
        maps: maps [K,N,H,W].
        masks: bool [N,H,W], or None.
        settings: settings of the metrics.
    """

    explainers: Sequence[Explainer]
    batch: Batch
    score: ClassScore
    maps: Tensor
    masks: Tensor | None = None
    settings: Settings = field(default_factory=Settings)

    @cached_property
    def before(self) -> Tensor:
        """Probabilities [N] of the images themselves."""
        return self.score.before

    @cached_property
    def ranks(self) -> Tensor:
        """Ranks [K*N,H,W] of the pixels of all maps."""
        return rank_pixels(self.maps.flatten(0, 1), self.settings.seed)

    @cached_property
    def after(self) -> Tensor:
        """Probabilities [K,N] of the images masked by their maps."""
        x, flat, owners = self.batch.x, self.maps.flatten(0, 1), self.owners

        def make(start: int, stop: int) -> Tensor:
            return mask_images(take_images(x, owners[start:stop]), flat[start:stop])

        return score_in_batches(self.score, make, owners, self.settings.batch_size).view(self.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of explainers and images, (K, N)."""
        return (self.maps.shape[0], self.maps.shape[1])

    @property
    def owners(self) -> list[int]:
        """Number of the image of each of the K*N maps."""
        return list(range(self.shape[1])) * self.shape[0]

    def follow(self, first: Tensor, last: Tensor) -> Tensor:
        """Compute the areas [K,N] under the curves from one image to another in the order of all maps."""
        scores = replace_in_order(
            self.score,
            first,
            last,
            self.ranks,
            self.owners,
            steps=self.settings.steps,
            batch_size=self.settings.batch_size,
        )
        return area_under_curve(scores).view(self.shape)

    def each_map(self, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute a value of each map by itself, [K,N], from a function of maps [N,H,W]."""
        return compute(self.maps.flatten(0, 1)).cpu().double().view(self.shape)

    def each_explainer(self, compute: Callable[[Explainer, Tensor], Tensor]) -> Tensor:
        """Compute [K,N] from a function of an explainer and its maps [N,H,W]."""
        pairs = zip(self.explainers, self.maps, strict=True)
        return torch.stack([compute(e, m).cpu().double() for e, m in pairs])

    def against_masks(self, compute: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Compute [K,N] from a function of maps and masks."""
        assert self.masks is not None
        masks = self.masks
        return self.each_explainer(lambda _, maps: compute(maps, masks))


@register_metric("deletion", "lower")
def _deletion(trial: Trial) -> Tensor:
    return trial.follow(trial.batch.x, make_baseline(trial.batch.x, trial.settings.deletion_baseline))


@register_metric("insertion", "higher")
def _insertion(trial: Trial) -> Tensor:
    return trial.follow(make_baseline(trial.batch.x, trial.settings.insertion_baseline), trial.batch.x)


@register_metric("road", "higher")
def _road(trial: Trial) -> Tensor:
    s = trial.settings
    return trial.each_explainer(
        lambda _, maps: road(
            trial.score,
            trial.batch.x,
            maps,
            fractions=s.fractions,
            noise=s.noise,
            batch_size=s.batch_size,
            seed=s.seed,
        )
    )


@register_metric("confidence_drop", "lower")
def _confidence_drop(trial: Trial) -> Tensor:
    return confidence_drop(trial.before.expand(trial.shape), trial.after)


@register_metric("confidence_increase", "higher")
def _confidence_increase(trial: Trial) -> Tensor:
    return confidence_increase(trial.before.expand(trial.shape), trial.after)


@register_metric("confidence_gain", "higher")
def _confidence_gain(trial: Trial) -> Tensor:
    return confidence_gain(trial.before.expand(trial.shape), trial.after)


@register_metric("sparseness", "higher")
def _sparseness(trial: Trial) -> Tensor:
    return trial.each_map(sparseness)


@register_metric("complexity", "lower")
def _complexity(trial: Trial) -> Tensor:
    return trial.each_map(complexity)


@register_metric("pointing_game", "higher", needs_masks=True)
def _pointing_game(trial: Trial) -> Tensor:
    return trial.against_masks(lambda maps, masks: pointing_game(maps, masks, tolerance=trial.settings.tolerance))


@register_metric("energy_pointing_game", "higher", needs_masks=True)
def _energy_pointing_game(trial: Trial) -> Tensor:
    return trial.against_masks(energy_pointing_game)


@register_metric("infidelity", "lower")
def _infidelity(trial: Trial) -> Tensor:
    s = trial.settings
    return trial.each_explainer(
        lambda _, maps: infidelity(
            trial.score, trial.batch.x, maps, samples=s.samples, batch_size=s.batch_size, seed=s.seed
        )
    )


@register_metric("max_sensitivity", "lower")
def _max_sensitivity(trial: Trial) -> Tensor:
    s, classes = trial.settings, trial.score.classes

    def of(explainer: Explainer, maps: Tensor) -> Tensor:
        def explain(x: Tensor, owners: Sequence[int]) -> Tensor:
            changed = trial.batch.take(owners).with_images(x)
            return explain_classes(explainer, changed, [classes[i] for i in owners])

        return max_sensitivity(
            explain,
            trial.batch.x,
            maps,
            radius=s.radius,
            samples=s.samples,
            batch_size=s.batch_size,
            seed=s.seed,
        )

    return trial.each_explainer(of)


@register_metric("randomization", "lower")
def _randomization(trial: Trial) -> Tensor:
    """Mean rank correlation with the maps of the model whose top layers are randomised, over all stages."""
    s = trial.settings

    def of(explainer: Explainer, maps: Tensor) -> Tensor:
        found = cascade(explainer, trial.batch, trial.score.classes, maps, stages=s.stages, seed=s.seed)
        return found.similarity.double().nanmean(0)

    return trial.each_explainer(of)
