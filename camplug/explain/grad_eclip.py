"""Grad-ECLIP (Zhao et al., 2024, arXiv 2502.18816)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from camplug.errors import LayerError
from camplug.explain.attention import AttentionExplainer
from camplug.explain.registry import register
from camplug.explain.tensor_ops import safe_divide, widen
from camplug.plug import AttentionCall
from camplug.plug.grid import Layout


def loosen_attention(query: Tensor, key: Tensor) -> Tensor:
    r"""Compute the spatial weights of Grad-ECLIP: cosines of queries and keys, each row scaled to [0, 1].

    .. math:: \lambda_{ij} = \frac{c_{ij} - \min_j c_{ij}}{\max_j c_{ij} - \min_j c_{ij}}, \quad
        c_{ij} = \frac{q_i \cdot k_j}{\lVert q_i \rVert \lVert k_j \rVert}

    Args:
        query: q, all heads joined, [N,T,D].
        key: k of the patches, [N,P,D].

    Returns:
        Weights [N,T,P]; 0 in rows of equal cosines.
    """
    cosines = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(1, 2)
    low, high = cosines.amin(-1, keepdim=True), cosines.amax(-1, keepdim=True)
    return safe_divide(cosines - low, (high - low).expand_as(cosines))


def grad_eclip(gradient: Tensor, weights: Tensor) -> Tensor:
    r"""Compute Grad-ECLIP of one layer.

    .. math:: L_j = \mathrm{relu}\Big(\sum_i \lambda_{ij} \sum_c \frac{\partial S}{\partial o_{ic}} v_{jc}\Big)

    with the attention's output o and the values v over all channels c. The inner sum is the gradient with respect to
    the attention probabilities, summed over the heads. i is the class token; in models without one, the sum runs over
    all tokens that the score reads (in the paper the class token alone).

    Args:
        gradient: :math:`\partial S / \partial A_{hij}`, [N,heads,T,P].
        weights: :math:`\lambda`, [N,T,P]; 0 for queries that are not read.

    Returns:
        Map [N,P], not negative, not normalised.
    """
    return (gradient.sum(1) * weights).sum(1).clamp_min(0)


@register("gradeclip")
class GradECLIP(AttentionExplainer):
    """Grad-ECLIP: values weighted by the gradient of the attention's output, and by cosines instead of attention.

    Reads the last attention layer; `last` adds the maps of several.
    """

    default_last: ClassVar[int | None] = 1

    @override
    def read_layer(self, call: AttentionCall, gradient: Tensor, read: Tensor, tokens: Layout) -> Tensor:
        query, key = call.inputs.query, call.inputs.key
        if query is None or key is None:
            raise LayerError(
                f"the queries and keys of the attention of {call.layer.name!r} cannot be read, and GradECLIP needs "
                "them; take LeGrad or GradientRollout."
            )
        with torch.autocast(gradient.device.type, enabled=False):
            joined_query, joined_key = (widen(t).transpose(1, 2).flatten(2) for t in (query, key))
            weights = loosen_attention(joined_query, tokens.pick(joined_key, 1))
            if read.shape[1] == weights.shape[1]:
                weights = weights * read[..., None]
            return grad_eclip(tokens.pick(gradient, -1), weights)

    @override
    def combine(self, parts: list[Tensor], read: Tensor, tokens: Layout) -> Tensor:
        return torch.stack(parts).sum(0)
