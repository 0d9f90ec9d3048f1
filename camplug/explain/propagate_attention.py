"""Propagation of maps over patches that attend to each other (CLIP-ES, Lin et al., 2023, arXiv 2212.09506)."""

from __future__ import annotations

import numbers
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.attention import find_attention
from camplug.explain.base import Explainer, Result
from camplug.explain.batch import call_model, check_batch, check_size
from camplug.explain.fuse import Normalize, normalize_map, resize_maps
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.registry import register_wrapper
from camplug.explain.tensor_ops import widen
from camplug.explain.wrapper import Wrapper, is_number, set_class_form
from camplug.plug import Classes, MapSize, Tape

ROUNDS = 3


def balance_attention(attention: Tensor) -> Tensor:
    r"""Return attention between patches as a symmetric affinity whose rows have about the sum 1.

    Columns and rows are divided by their sums in turn, three times (Sinkhorn), then the matrix and its transpose are
    averaged, as in CLIP-ES.

    Args:
        attention: [N,P,P], not negative.

    Returns:
        Affinity [N,P,P].

    >>> balance_attention(torch.tensor([[[0.5, 0.5], [0.5, 0.5]]]))
    tensor([[[0.5000, 0.5000],
             [0.5000, 0.5000]]])
    """
    tiny = torch.finfo(attention.dtype).tiny
    for _ in range(ROUNDS):
        attention = attention / attention.sum(1, keepdim=True).clamp_min(tiny)
        attention = attention / attention.sum(2, keepdim=True).clamp_min(tiny)
    return (attention + attention.transpose(1, 2)) / 2


@register_wrapper("propagateattention")
class PropagateAttention(Wrapper):
    r"""Propagate the maps of an explainer over the patches of a transformer that attend to each other.

    .. math:: m' = B^t m, \quad B = \mathrm{balanced}\big(\mathrm{mean}_{hl} A_{hl}\big)

    The attention A between the patches is averaged over the heads and the last layers, and balanced
    (`balance_attention`). Needs one more forward pass. CLIP-ES also restricts the result to boxes about the map, which
    this does not.

    Args:
        explainer: any explainer of a transformer.
        last: number of attention layers, counted from the last one; CLIP-ES has 8; None takes all.
        steps: number of steps t.
        normalize: normalisation of the result: "max", "minmax" or None.

    Raises:
        LayerError: at call time, the model computes no attention between all tokens of an image.
    """

    needs_attention: ClassVar[bool] = True

    def __init__(
        self, explainer: Explainer, last: int | None = 8, steps: int = 2, *, normalize: Normalize = "max"
    ) -> None:
        super().__init__(explainer, normalize=normalize)
        wanted = (steps,) if last is None else (last, steps)
        if not all(is_number(v, numbers.Integral) and v >= 1 for v in wanted):
            raise InputError(f"last={last!r}, steps={steps!r}; give whole numbers of at least 1.")
        self.last, self.steps = last, steps

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        sizes = check_size(batch, size)
        wanted, per_image = self.choose_classes(batch, classes)
        affinity, grid = self.compute_affinity(batch)
        result = self.explainer.run_batch(batch, wanted)
        maps = []
        for found, own, out_size in zip(result.maps, affinity, sizes, strict=True):
            coarse = F.adaptive_avg_pool2d(found, grid) if len(found) else found.new_zeros(0, *grid)
            spread = coarse.flatten(1).to(own.dtype)
            for _ in range(self.steps):
                spread = spread @ own.T
            maps.append(normalize_map(resize_maps(spread.view(-1, *grid).to(found.dtype), out_size), self.normalize))
        return set_class_form(Result(maps, result.targets, result.logits), per_image)

    @torch.no_grad()
    def compute_affinity(self, batch: Batch) -> tuple[Tensor, tuple[int, int]]:
        """Return the affinity [N,P,P] of the patches, and their grid.

        Raises:
            LayerError: the model computes no attention between all tokens of an image.
        """
        with Tape(self.model, (), attention=True, forward_only=True, image=batch.where) as tape:
            call_model(self.model, batch)
            calls, tokens = find_attention(self.model, tape, batch, type(self).__name__)
            square = [c.probabilities for c in calls.values() if c.probabilities.shape[2] == c.probabilities.shape[3]]
            chosen = square if self.last is None else square[-self.last :]
            with torch.autocast(batch.x.device.type, enabled=False):
                mean = torch.stack([widen(p).mean(1) for p in chosen]).mean(0)
                return balance_attention(tokens.pick(tokens.pick(mean, 1), 2)), (tokens.h, tokens.w)
