"""FEM, the feature explanation method (Fuad et al., IPTA 2020)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.activation import ActivationExplainer
from camplug.explain.registry import register
from camplug.explain.tensor_ops import weighted_sum, widen
from camplug.explain.wrapper import is_number
from camplug.plug import Selector


def fem(activation: Tensor, deviations: float = 2.0) -> Tensor:
    r"""Compute FEM of one layer: where channels are unusually strong.

    .. math:: L = \mathrm{relu}\Big(\sum_k \mu_k\, [A_k \ge \mu_k + d\, \sigma_k]\Big)

    with mean and standard deviation of each channel over the positions.

    Args:
        activation: A, [N,K,h,w].
        deviations: d.

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    a = widen(activation).flatten(2)
    mean, deviation = a.mean(2), a.std(2, correction=0)
    strong = a >= (mean + deviations * deviation)[..., None]
    return weighted_sum(strong.to(a.dtype).view(activation.shape), mean).clamp_min_(0)


@register("fem")
class FEM(ActivationExplainer):
    """FEM: channels of the last feature map where they exceed mean plus two deviations; independent of the class.

    Args:
        model: any module, which is never changed.
        layers: layers to read; default: the last feature map.
        deviations: standard deviations above a channel's mean.
        options: further arguments of `LayerExplainer`.
    """

    def __init__(
        self, model: nn.Module, layers: Selector | None = None, *, deviations: float = 2.0, **options: Any
    ) -> None:
        super().__init__(model, layers, **options)
        if not is_number(deviations):
            raise InputError(f"deviations={deviations!r}; give a number of standard deviations, for instance 2.")
        self.deviations = deviations

    @override
    def activation_map(self, activation: Tensor) -> Tensor:
        return fem(activation, self.deviations)
