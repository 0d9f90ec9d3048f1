"""Attribution of pixels by gradients averaged over copies: integrated gradients (2017) and SmoothGrad (2017)."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.base import Explainer, Result
from camplug.explain.batch import check_batch, check_size, find_class_logits, finish_maps
from camplug.explain.fuse import Fusion
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen
from camplug.explain.wrapper import is_number
from camplug.plug import Classes, Layer, MapSize, Tape, Targets, resolve_classes, unwrap
from camplug.plug.data_flow import find_images


def integrate_gradients(image: Tensor, baseline: Tensor, gradients: Tensor) -> Tensor:
    r"""Compute integrated gradients (eq. 1 of arXiv 1703.01365, as a sum) from gradients on the path.

    .. math:: a = (x - x') \odot \frac1n \sum_i \nabla S\Big(x' + \frac{i - 1/2}{n} (x - x')\Big)

    The sum of a is the difference of the scores of image and baseline, up to the error of the sum.

    Args:
        image: x, [N,C,H,W].
        baseline: x', [N,C,H,W].
        gradients: mean of the gradients, [N,C,H,W].

    Returns:
        Attributions a, [N,C,H,W].
    """
    return (widen(image) - widen(baseline)) * widen(gradients)


def make_noise(x: Tensor, share: float, seed: int, count: int) -> Iterator[Tensor]:
    """Yield noise [N,C,H,W] for images x, `count` times; its deviation is a share of each image's range.

    All images have the same noise up to this factor, so that a map does not depend on the other images of a batch.
    """
    generator = torch.Generator().manual_seed(seed)
    dims = tuple(range(1, x.ndim))
    span = x.amax(dims, keepdim=True) - x.amin(dims, keepdim=True)
    for _ in range(count):
        yield torch.randn(x.shape[1:], generator=generator).to(x) * span * share


class _Entry(nn.Module):
    """Model whose images pass through a layer of its own first, where a tape finds them."""

    def __init__(self, model: nn.Module, where: int | None) -> None:
        super().__init__()
        self.model, self.where, self.entry = model, where, nn.Identity()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        image = find_images((args, kwargs), self.where)
        args, kwargs = tree_map_only(Tensor, lambda t: self.entry(t) if t is image else t, (args, kwargs))
        return self.model(*args, **kwargs)


class PixelExplainer(Explainer):
    """Base class of explainers that average gradients with respect to the pixels of several copies of each image."""

    needs_many_passes: ClassVar[bool] = True

    @abstractmethod
    def make_copies(self, x: Tensor) -> Iterator[Tensor]:
        """Yield changed copies [N,C,H,W] of the images."""

    @abstractmethod
    def make_map(self, x: Tensor, gradients: Tensor) -> Tensor:
        """Compute the maps [N,H,W] from the images and the mean of the gradients [N,C,H,W]."""

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        sizes = check_size(batch, size)
        targets, logits, gradients = self.average_gradients(batch, classes)
        fusions = []
        for gradient in gradients:
            fusion = Fusion(None)
            fusion.add(self.make_map(batch.x, gradient), 1)
            fusions.append(fusion)
        return Result(finish_maps(fusions, targets, batch.x, sizes, self.normalize), targets, logits)

    def average_gradients(self, batch: Batch, classes: Classes) -> tuple[Targets, Tensor | None, list[Tensor]]:
        """Return the targets and logits of the images, and each round's mean gradients [N,C,H,W] over the copies."""
        with self.open(batch) as (_, output):
            targets = self.resolve(batch, output, classes)
            logits = find_class_logits(output, len(batch))
        sums: list[Tensor | float] = [0.0] * targets.rounds
        count = 0
        for copies in self.make_copies(batch.x):
            count += 1
            with self.open(batch.with_images(copies)) as (tape, output):
                gradients = compute_gradients(tape, output, targets)
            sums = [total + widen(gradient) for total, gradient in zip(sums, gradients, strict=True)]
        return targets, logits, [torch.as_tensor(total / count) for total in sums]

    def resolve(self, batch: Batch, output: Any, classes: Classes) -> Targets:
        """Return the targets of the images, from the model's output for them."""
        targets = resolve_classes(classes, output, len(batch), self.evidence)
        targets.check(output)
        if targets.score is not None:
            targets.compute_scores(output, 0)  # raises for what is not one number per image
        return targets

    @contextmanager
    def open(self, batch: Batch) -> Iterator[tuple[Tape, Any]]:
        """Run the model with a tape at its images; yield the tape and the output."""
        model = _Entry(unwrap(self.model), batch.where)
        args, kwargs = batch.make_arguments()
        with Tape(model, ["entry"], image=batch.where) as tape:
            yield tape, model(*args, **kwargs)


def compute_gradients(tape: Tape, output: Any, targets: Targets) -> list[Tensor]:
    """Return the gradient of each round's scores with respect to the images, from a tape at the images."""
    found: list[Tensor] = []

    def add(layer: Layer, image: Tensor, gradient: Tensor) -> None:
        found.append(gradient)

    for r in range(targets.rounds):
        tape.backward(targets.compute_scores(output, r), add, retain_graph=r + 1 < targets.rounds)
    return found


@register("integratedgradients")
class IntegratedGradients(PixelExplainer):
    """Integrated gradients: gradients on the way from a plain image to the image, times their difference.

    Attributions are added over the channels; what is left is evidence for the class per pixel.

    Args:
        model: any module, which is never changed.
        steps: number of images on the way (midpoint rule).
        baseline: value of all pixels of the plain image, after preprocessing; 0 is the mean colour of the training
            images in most models.
        options: further arguments of `Explainer`.
    """

    def __init__(self, model: nn.Module, steps: int = 32, baseline: float = 0.0, **options: Any) -> None:
        super().__init__(model, **options)
        if not is_number(steps, numbers.Integral) or steps < 1 or not is_number(baseline):
            raise InputError(
                f"steps={steps!r}, baseline={baseline!r}; give a whole number of at least 1, and the value of a pixel."
            )
        self.steps, self.baseline = steps, baseline

    @override
    def make_copies(self, x: Tensor) -> Iterator[Tensor]:
        for i in range(self.steps):
            yield self.baseline + (x - self.baseline) * ((i + 0.5) / self.steps)

    @override
    def make_map(self, x: Tensor, gradients: Tensor) -> Tensor:
        plain = torch.full_like(x, self.baseline)
        return integrate_gradients(x, plain, gradients).sum(1).clamp_min(0)


@register("smoothgrad")
class SmoothGrad(PixelExplainer):
    r"""SmoothGrad: length of the mean gradient of noisy copies; how sensitive the score is to each pixel.

    .. math:: L = \sum_c \Big|\frac1n \sum_i \nabla_c S(x + \epsilon_i)\Big|

    Sensitivity has no sign, so evidence against a class looks the same as for it.

    Args:
        model: any module, which is never changed.
        samples: number of noisy copies n; the paper has 50.
        noise: standard deviation of the noise as a share of the image's range; the paper has 0.1 to 0.2.
        seed: seed of the noise.
        options: further arguments of `Explainer`.
    """

    def __init__(
        self, model: nn.Module, samples: int = 16, noise: float = 0.15, *, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(model, **options)
        check_noise(samples, noise)
        if self.evidence == "negative":
            raise InputError("smoothgrad shows sensitivity, which has no sign; take IntegratedGradients.")
        self.samples, self.noise, self.seed = samples, noise, seed

    @override
    def make_copies(self, x: Tensor) -> Iterator[Tensor]:
        for noise in make_noise(x, self.noise, self.seed, self.samples):
            yield x + noise

    @override
    def make_map(self, x: Tensor, gradients: Tensor) -> Tensor:
        return gradients.abs().sum(1)


def check_noise(samples: Any, noise: Any) -> None:
    """Check the options of noisy copies.

    Raises:
        InputError: an option is not allowed.
    """
    if not is_number(samples, numbers.Integral) or samples < 1 or not is_number(noise) or noise < 0:
        raise InputError(
            f"samples={samples!r}, noise={noise!r}; give a whole number of at least 1, and a share of the image's "
            "range, for instance 0.15."
        )
