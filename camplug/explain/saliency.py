"""Attribution of pixels by one gradient: saliency (Simonyan et al., 2014) and input times gradient (2016)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.batch import find_class_logits
from camplug.explain.inputs import Batch
from camplug.explain.pixels import PixelExplainer, compute_gradients
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen
from camplug.plug import Classes, Targets


def compute_saliency(gradient: Tensor) -> Tensor:
    r"""Compute the saliency of pixels (Sec. 3.1 of arXiv 1312.6034).

    .. math:: L = \max_c |g_c|

    Args:
        gradient: g, [N,C,H,W].

    Returns:
        Map [N,H,W], not negative, not normalised.
    """
    return gradient.abs().amax(1)


def multiply_by_input(image: Tensor, gradient: Tensor) -> Tensor:
    r"""Compute input times gradient (Shrikumar et al., arXiv 1605.01713).

    .. math:: L = \sum_c x_c\, g_c

    It is the first-order change of the score from the image 0, and exactly the score of a network of convolutions and
    ReLUs without biases.

    Args:
        image: x, [N,C,H,W].
        gradient: g, [N,C,H,W].

    Returns:
        Map [N,H,W], of either sign, not normalised.
    """
    return (widen(image) * widen(gradient)).sum(1)


class _OneGradient(PixelExplainer):
    """Base class of explainers that read the gradient at the image itself, in one pass."""

    needs_many_passes: ClassVar[bool] = False

    @override
    def make_copies(self, x: Tensor) -> Iterator[Tensor]:
        yield x

    @override
    def average_gradients(self, batch: Batch, classes: Classes) -> tuple[Targets, Tensor | None, list[Tensor]]:
        with self.open(batch) as (tape, output):
            targets = self.resolve(batch, output, classes)
            return targets, find_class_logits(output, len(batch)), compute_gradients(tape, output, targets)


@register("saliency")
class Saliency(_OneGradient):
    r"""Saliency: largest absolute gradient over the channels; how sensitive the score is to each pixel.

    .. math:: L = \max_c \Big|\frac{\partial S}{\partial x_c}\Big|

    Sensitivity has no sign, so evidence against a class looks the same as for it. `SmoothGrad` is less noisy.

    Args:
        model: any module, which is never changed.
        options: further arguments of `Explainer`.
    """

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, **options)
        if self.evidence == "negative":
            raise InputError("saliency shows sensitivity, which has no sign; take InputXGradient.")

    @override
    def make_map(self, x: Tensor, gradients: Tensor) -> Tensor:
        return compute_saliency(widen(gradients))


@register("inputxgradient")
class InputXGradient(_OneGradient):
    r"""Input times gradient: what each pixel adds to the score, to first order.

    .. math:: L = \mathrm{relu}\Big(\sum_c x_c \frac{\partial S}{\partial x_c}\Big)

    Pixels of value 0 after preprocessing, the mean colour of most training sets, get none.

    Args:
        model: any module, which is never changed.
        options: further arguments of `Explainer`.
    """

    @override
    def make_map(self, x: Tensor, gradients: Tensor) -> Tensor:
        return multiply_by_input(x, gradients).clamp_min(0)
