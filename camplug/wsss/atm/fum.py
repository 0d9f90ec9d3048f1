"""Focused-unfocused module (FUM): attention, atrous convolutions and the context relation of positions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.explain.tensor_ops import widen
from camplug.wsss.atm.attention import Atrous, ChannelAttention, SpatialAttention


def context_relation(features: Tensor, eps: float = 1e-5, *, centred: bool = False) -> Tensor:
    r"""Compute the relation of all positions: cosine similarity, ReLU, rows divided by their sums.

    .. math:: \theta(V_m, V_n) = \frac{V_m^T V_n}{|V_m| |V_n|} \quad (3), \qquad
              M_{mn} = \frac{\mathrm{relu}(\theta(V_m, V_n))}{\sum_k \mathrm{relu}(\theta(V_m, V_k)) + \epsilon}

    (Qin et al., TCSVT 2024; activation and normalisation, which they leave open, follow SEAM, Wang et al., CVPR 2020.)
    Positions are numbered row by row. The row of a position whose features are all 0 is 0.

    Args:
        features: [N,K,h,w].
        eps: term of the denominators, against division by 0.
        centred: subtract the image's mean feature first (ours). After a ReLU no cosine is negative, so each position is
            related to all others nearly equally; with the mean removed, the ReLU suppresses dissimilar positions.

    Returns:
        [N,h*w,h*w], at least float32, also in autocast.

    Raises:
        InputError: the features have another shape.

    >>> features = torch.tensor([[[[1.0, 2.0, 0.0]], [[0.0, 0.0, 1.0]]]])
    >>> context_relation(features).round(decimals=2)
    tensor([[[0.5000, 0.5000, 0.0000],
             [0.5000, 0.5000, 0.0000],
             [0.0000, 0.0000, 1.0000]]])
    """
    if features.ndim != 4:
        raise InputError(f"features {list(features.shape)}; give [N,K,h,w].")
    with torch.autocast(features.device.type, enabled=False):
        vectors = widen(features).flatten(2)
        if centred:
            vectors = vectors - vectors.mean(2, keepdim=True)
        directions = vectors / (torch.linalg.vector_norm(vectors, dim=1, keepdim=True) + eps)
        similarity = (directions.mT @ directions).relu()
        relation: Tensor = similarity / (similarity.sum(2, keepdim=True) + eps)
    return relation


class FUM(nn.Module):
    r"""Focused-unfocused module between backbone and classifier (Qin et al., TCSVT 2024, section III-C).

    .. math:: F = \mathrm{spatial}(\mathrm{channel}(x)), \qquad
              \mathrm{FUM}(x) = M_c(\mathrm{atrous}(F))\, F

    Focused: attention over channels, then over positions. Unfocused: atrous convolutions, from whose output the
    relation of positions is computed (`context_relation`); each position becomes the weighted mean of the attended
    features. The output has as many channels as the input.

    Each part can be left out, as in the paper's tables. Without `atrous`, the relation is computed from F. Without
    `context`, a 1x1 convolution projects the atrous output to C channels, which are added to F; its weights start at 0,
    so the untrained module leaves F unchanged. Without any part the module is the identity and has no parameters.

    The two untrained gates are sigmoids around 0.5, so the untrained module with both gives about a quarter of the
    backbone's activations, and the relation keeps that mean. A classifier trained on top learns the factor.

    The relation has (h*w)^2 numbers per image, which `most_positions` bounds.

    Args:
        channels: C, channels of the features.
        width: channels of the atrous layers; None is a quarter of `channels`.
        channel_attention: squeeze-and-excitation, none, or a module [N,C,h,w] -> [N,C,h,w].
        spatial_attention: CBAM's gate of positions, none, or such a module.
        atrous: use the atrous layers.
        context: use the relation.
        dilations: dilations of the atrous layers. The paper prints 0, 1, 2, 3, the zeros between the weights.
        reduction: reduction factor of the channel attention.
        residual: add F to the related features.
        centred: see `context_relation`.
        most_positions: largest h*w with a relation; 4096 is 1024 x 1024 pixels at stride 16.

    Raises:
        InputError: an option is out of range; in the forward pass, features have other channels or too many positions.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int | None = None,
        channel_attention: bool | nn.Module = True,
        spatial_attention: bool | nn.Module = True,
        atrous: bool = True,
        context: bool = True,
        dilations: Sequence[int] = (1, 2, 3, 4),
        reduction: int = 16,
        residual: bool = False,
        centred: bool = False,
        most_positions: int = 4096,
    ) -> None:
        super().__init__()
        if channels < 1 or most_positions < 1:
            raise InputError(f"channels={channels}, most_positions={most_positions}; give whole numbers from 1 up.")
        if residual and not context:
            raise InputError("residual=True adds to the context relation, which context=False leaves out; set one.")
        if centred and not context:
            raise InputError("centred=True is of the context relation, which context=False leaves out; set one.")
        width = max(1, channels // 4) if width is None else width
        self._settings = {
            "channels": channels,
            "width": width,
            "channel_attention": bool(channel_attention),
            "spatial_attention": bool(spatial_attention),
            "atrous": atrous,
            "context": context,
            "dilations": list(dilations),
            "reduction": reduction,
            "residual": residual,
            "centred": centred,
            "most_positions": most_positions,
        }
        self.centred = centred
        self.channels, self.context, self.residual, self.most_positions = channels, context, residual, most_positions
        options = {"channel_attention": channel_attention, "spatial_attention": spatial_attention}
        self._injected = [name for name, option in options.items() if isinstance(option, nn.Module)]
        self.channel_attention = _make_attention(channel_attention, lambda: ChannelAttention(channels, reduction))
        self.spatial_attention = _make_attention(spatial_attention, SpatialAttention)
        self.atrous = Atrous(channels, width, dilations) if atrous else None
        self.project = None
        if atrous and not context:
            self.project = nn.Conv2d(width, channels, 1, bias=False)
            nn.init.zeros_(self.project.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Compute features of the same shape, [N,C,h,w]."""
        self._check(x)
        attended: Tensor = x
        for attention in (self.channel_attention, self.spatial_attention):
            if attention is not None:
                attended = attention(attended)
        if attended.shape != x.shape:
            raise InputError(
                f"the attention turns features {list(x.shape)} into {list(attended.shape)}; inject modules that keep "
                "the shape."
            )
        features = attended if self.atrous is None else self.atrous(attended)
        if self.project is not None:
            added: Tensor = self.project(features)
            return attended + added
        if not self.context:
            return attended
        vectors = attended.flatten(2).mT
        relation = context_relation(features, centred=self.centred).to(vectors.dtype)
        related: Tensor = (relation @ vectors).mT.reshape(x.shape)
        return attended + related if self.residual else related

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build this module again, `FUM(**settings)`.

        Raises:
            InputError: an attention module was injected.

        >>> FUM(64).settings()["width"]
        16
        """
        if self._injected:
            raise InputError(
                f"an injected module ({', '.join(self._injected)}) cannot be described by plain settings; rebuild this "
                "FUM as you built it, or give True or False."
            )
        return copy.deepcopy(self._settings)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise InputError(f"features {list(x.shape)}; this FUM takes [N,{self.channels},h,w].")
        if self.context:
            check_positions(x, self.most_positions)


def check_positions(x: Tensor, most: int) -> None:
    """Check that features [N,C,h,w] have at most `most` positions.

    Raises:
        InputError: they have more, and their relation would take much memory.
    """
    n, _, h, w = x.shape
    if h * w > most:
        mebibytes = n * (h * w) ** 2 * x.element_size() / 2**20
        raise InputError(
            f"features of {h} x {w} are {h * w} positions, more than most_positions={most}, and their context relation "
            f"would take {mebibytes:.0f} MiB; give smaller images, or a larger most_positions."
        )


def _make_attention(option: bool | nn.Module, fresh: Callable[[], nn.Module]) -> nn.Module | None:
    if isinstance(option, nn.Module):
        return option
    return fresh() if option else None
