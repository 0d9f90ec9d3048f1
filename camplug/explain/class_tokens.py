"""Class-token attention of MCTformer (Xu et al., 2022, arXiv 2203.02891)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from camplug.errors import LayerError
from camplug.explain.attention import AttentionExplainer, average_rows, find_queries
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen
from camplug.plug import AttentionCall, Layer, Tape, get_logits
from camplug.plug.grid import Layout


def refine_by_affinity(attention: Tensor, affinity: Tensor) -> Tensor:
    r"""Compute the refined map of a class token.

    .. math:: L_i = \sum_j P_{ij}\, a_j

    Args:
        attention: a, attention of the class token to the patches, [N,P].
        affinity: attention between patches, [N,P,P].

    Returns:
        Map [N,P], not negative, not normalised.
    """
    return (affinity @ attention[..., None])[..., 0]


@register("classtoken")
class ClassTokenAttention(AttentionExplainer):
    """Attention of a class's own token to the patches, refined by the attention between patches (MCTformer).

    Needs a transformer with one token per class, as in MCTformer: the score of a class must depend on one token besides
    the patches, and on another one for another class. The token's attention is averaged over the heads and over the
    last layers (`last`, 3 in the paper), the affinity over all heads and layers.
    """

    default_last: ClassVar[int | None] = 3

    @override
    def read_layer(self, call: AttentionCall, gradient: Tensor, read: Tensor, tokens: Layout) -> Tensor:
        return widen(call.probabilities).mean(1)

    @property
    @override
    def last_read(self) -> int | None:
        return None  # the affinity is that of all layers

    @override
    def combine(self, parts: list[Tensor], read: Tensor, tokens: Layout) -> Tensor:
        own = find_own_tokens(read, tokens)
        if bool((own.sum(1) > 1).any()):
            raise LayerError(
                "ClassTokenAttention explains one class by its own token, and this score reads several tokens; give a "
                "class, or take GradientRollout."
            )
        attention = average_rows(torch.stack(parts[-(self.last or len(parts)) :]).mean(0), own)
        affinity = tokens.pick(tokens.pick(torch.stack(parts).mean(0), 1), 2)
        return refine_by_affinity(tokens.pick(attention, 1), affinity)

    @override
    def check_tokens(self, tape: Tape, output: Any, n: int, tokens: Layout) -> None:
        """Check that two classes depend on one token each, and not the same.

        Raises:
            LayerError: they do not.
        """
        logits = get_logits(output, n)
        if tokens.others >= logits.shape[1] > 1:
            found = [self._find_tokens_of_class(tape, logits, c, tokens) for c in (0, 1)]
            if all(bool((own.sum(1) == 1).all()) for own in found) and not bool((found[0] & found[1]).any()):
                return
        raise LayerError(
            f"ClassTokenAttention needs a transformer with a token of its own for every class (MCTformer), and this "
            f"{self._get_kind()} has {tokens.others} token{'s'[: tokens.others != 1]} besides the patches for "
            f"{logits.shape[1]} classes; take GradientRollout or LeGrad."
        )

    @staticmethod
    def _find_tokens_of_class(tape: Tape, logits: Tensor, c: int, tokens: Layout) -> Tensor:
        """Return the tokens besides the patches that the score of a class depends on, bool [N,T]."""
        found: list[Tensor] = []

        def add(layer: Layer, probabilities: Tensor, gradient: Tensor) -> None:
            if not found:
                found.append(find_own_tokens(find_queries(gradient), tokens))

        tape.backward(logits[:, c], add, retain_graph=True)
        return found[0]


def find_own_tokens(read: Tensor, tokens: Layout) -> Tensor:
    """Return the queries [N,T] that are read and no patches."""
    own = read.clone()
    tokens.pick(own, 1).fill_(False)
    return own
