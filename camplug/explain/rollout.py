"""Attention rollout (Abnar and Zuidema, 2020), also weighted by gradients (Chefer et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from camplug.explain.attention import AttentionExplainer, average_rows
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen
from camplug.plug import AttentionCall
from camplug.plug.grid import Layout


def roll_out(attentions: Sequence[Tensor]) -> Tensor:
    r"""Compute attention rollout (Abnar and Zuidema, arXiv 2005.00928, Sec. 3).

    .. math:: R = \bar A_L \cdots \bar A_1, \quad \bar A_l = \tfrac12 A_l + \tfrac12 I

    A layer with other queries than keys (attention pooling) has no residual connection: its :math:`\bar A` is A.

    Args:
        attentions: A_l, mean of the heads, [N,T,S] of each layer, first to last; rows have the sum 1.

    Returns:
        R, [N,T,S] of the last layer's queries over the first layer's keys.

    >>> roll_out([torch.tensor([[[0.5, 0.5], [0.0, 1.0]]]), torch.tensor([[[0.0, 1.0], [0.5, 0.5]]])])
    tensor([[[0.3750, 0.6250],
             [0.1875, 0.8125]]])
    """
    relevance = make_identity(attentions[0])
    for attention in attentions:
        square = attention.shape[1] == attention.shape[2]
        relevance = ((attention + make_identity(attention)) / 2 if square else attention) @ relevance
    return relevance


def roll_out_gradients(parts: Sequence[Tensor]) -> Tensor:
    r"""Compute gradient-weighted rollout of self-attention (Chefer et al., 2021, arXiv 2103.15679, eq. 5 and 6).

    .. math:: R \leftarrow R + \bar A_l R, \quad \bar A_l = \mathrm{mean}_h\,\mathrm{relu}(g_l \odot A_l)

    A layer with other queries than keys (attention pooling) has no residual connection: :math:`R \leftarrow \bar A R`.

    Args:
        parts: :math:`\bar A_l`, [N,T,S] of each layer, first to last.

    Returns:
        R - I, the relevance [N,T,S] without that of each token for itself.

    >>> roll_out_gradients([torch.tensor([[[0.0, 1.0], [2.0, 0.0]]]), torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])])
    tensor([[[2., 2.],
             [2., 0.]]])
    """
    relevance = make_identity(parts[0])
    square = True
    for part in parts:
        square = part.shape[1] == part.shape[2]
        relevance = relevance + part @ relevance if square else part @ relevance
    return relevance - make_identity(relevance) if square else relevance


def weight_by_gradient(attention: Tensor, gradient: Tensor) -> Tensor:
    r"""Compute :math:`\mathrm{mean}_h\,\mathrm{relu}(g \odot A)`, [N,T,S], of A and g [N,heads,T,S]."""
    return (widen(attention) * widen(gradient)).clamp_min(0).mean(1)


def make_identity(like: Tensor) -> Tensor:
    """Return identity matrices [N,S,S] for the keys of an attention [N,T,S]."""
    return torch.eye(like.shape[2], dtype=like.dtype, device=like.device).expand(len(like), -1, -1)


@register("rollout")
class AttentionRollout(AttentionExplainer):
    """Attention rollout: product of the layers' attention, half of it passed on unchanged; independent of the class.

    The map is the mean of the rows of the tokens that the score reads: the class token, or the patches.
    """

    knows_classes: ClassVar[bool] = False

    @override
    def read_layer(self, call: AttentionCall, gradient: Tensor, read: Tensor, tokens: Layout) -> Tensor:
        return widen(call.probabilities).mean(1)

    @override
    def combine(self, parts: list[Tensor], read: Tensor, tokens: Layout) -> Tensor:
        return tokens.pick(average_rows(roll_out(parts), read), -1)


@register("gradientrollout")
class GradientRollout(AttentionExplainer):
    """Gradient-weighted rollout: the layers' attention times its positive gradient, followed from score to patches.

    The map is the mean of the rows of the tokens that the score reads: the class token, or the patches.
    """

    @override
    def read_layer(self, call: AttentionCall, gradient: Tensor, read: Tensor, tokens: Layout) -> Tensor:
        return weight_by_gradient(call.probabilities, gradient)

    @override
    def combine(self, parts: list[Tensor], read: Tensor, tokens: Layout) -> Tensor:
        return tokens.pick(average_rows(roll_out_gradients(parts), read), -1)
