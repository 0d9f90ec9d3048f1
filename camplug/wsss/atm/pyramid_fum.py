"""Focused-unfocused module on the finer level of a feature pyramid, which a trained head survives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.wsss.atm.attention import Atrous, ChannelAttention, SpatialAttention
from camplug.wsss.atm.fum import check_positions, context_relation


class PyramidFUM(nn.Module):
    r"""Focused-unfocused module on the grid of an earlier stage (Qin et al., TCSVT 2024, section III-C).

    .. math:: F = \mathrm{spatial}(\mathrm{channel}(\mathrm{up}(x))), \quad
              P = W_4 x_4 + W_5\, \mathrm{up}(x), \quad A = \mathrm{atrous}(P)

    .. math:: \mathrm{FUM}(x) = M_c(P + W_r A)\, F + W_a A

    :math:`x` are the last features, :math:`x_4` those of an earlier stage, and :math:`P` is their level of a feature
    pyramid, as the paper's backbone has one: 256 channels of any sign, without a ReLU. The relation :math:`M_c`
    (`context_relation`, eq. 3) is of :math:`P` with the mean of the image removed.

    :math:`W_5`, :math:`W_r` and :math:`W_a` begin at zero, :math:`W_4` keeps inner products where it has as many
    columns, and the gates are doubled and begin at 1. So the untrained module replaces each position by the mean of
    related ones, channels keep their meaning, and a trained head fits. Each part can be left out.

    Args:
        channels: C, channels of the last features.
        stage: name of the layer that ends the earlier stage.
        stage_channels: channels of this layer.
        lateral: channels of P.
        width: channels of the atrous layers; None is a quarter of `lateral`.
        channel_attention: weigh channels (squeeze and excitation).
        spatial_attention: weigh positions.
        atrous: use the atrous layers.
        context: use the relation.
        dilations: dilations of the atrous layers.
        reduction: reduction factor of the channel attention.
        most_positions: largest h*w with a relation.

    Raises:
        InputError: an option is out of range; in the forward pass, features have other channels or too many positions.
    """

    needs_stage: ClassVar[bool] = True
    keeps_channels: ClassVar[bool] = True

    def __init__(
        self,
        channels: int,
        *,
        stage: str,
        stage_channels: int,
        lateral: int = 256,
        width: int | None = None,
        channel_attention: bool = True,
        spatial_attention: bool = True,
        atrous: bool = True,
        context: bool = True,
        dilations: Sequence[int] = (1, 2, 3, 4),
        reduction: int = 16,
        most_positions: int = 4096,
    ) -> None:
        super().__init__()
        numbers = {"channels": channels, "stage_channels": stage_channels, "lateral": lateral}
        for name, value in {**numbers, "most_positions": most_positions}.items():
            if value < 1:
                raise InputError(f"{name}={value}; give a whole number from 1 up.")
        width = max(1, lateral // 4) if width is None else width
        self.stage, self.context, self.most_positions = stage, context, most_positions
        self._settings = {
            **numbers,
            "stage": stage,
            "width": width,
            "channel_attention": channel_attention,
            "spatial_attention": spatial_attention,
            "atrous": atrous,
            "context": context,
            "dilations": list(dilations),
            "reduction": reduction,
            "most_positions": most_positions,
        }
        self.channel_attention = ChannelAttention(channels, reduction) if channel_attention else None
        self.spatial_attention = SpatialAttention() if spatial_attention else None
        self.lateral = self.top = self.atrous = self.relate = self.project = None
        if atrous or context:
            self.lateral = nn.Conv2d(stage_channels, lateral, 1, bias=False)
            nn.init.orthogonal_(self.lateral.weight)
            self.top = _make_zero_convolution(channels, lateral)
        if atrous:
            self.atrous = Atrous(lateral, width, dilations)
            self.project = _make_zero_convolution(width, channels)
            self.relate = _make_zero_convolution(width, lateral) if context else None
        self._open_gates()

    def _open_gates(self) -> None:
        """Let both gates begin at 0.5, so that the doubled ones are 1."""
        if self.channel_attention is not None:
            for parameter in self.channel_attention.gate[2].parameters():
                nn.init.zeros_(parameter)
        if self.spatial_attention is not None:
            nn.init.zeros_(self.spatial_attention.conv.weight)

    def forward(self, x: Tensor, earlier: Tensor) -> Tensor:
        """Compute features [N,C,H,W] from the last ones [N,C,h,w] and those of the earlier stage [N,D,H,W]."""
        self._check(x, earlier)
        up = x
        if x.shape[2:] != earlier.shape[2:]:
            up = F.interpolate(x, earlier.shape[2:], mode="bilinear", align_corners=False)
        attended = up
        for attention in (self.channel_attention, self.spatial_attention):
            if attention is not None:
                attended = 2 * attention(attended)
        if self.lateral is None or self.top is None:
            return attended
        level: Tensor = self.lateral(earlier) + self.top(up)
        added = None
        if self.atrous is not None and self.project is not None:
            unfocused = self.atrous(level)
            added = self.project(unfocused)
            level = level if self.relate is None else level + self.relate(unfocused)
        if self.context:
            relation = context_relation(level, centred=True).to(attended.dtype)
            attended = (relation @ attended.flatten(2).mT).mT.reshape(attended.shape)
        return attended if added is None else attended + added

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build this module again, `PyramidFUM(**settings)`.

        >>> PyramidFUM(64, stage="layer3", stage_channels=32).settings()["width"]
        64
        """
        return {**self._settings, "dilations": list(self._settings["dilations"])}  # type: ignore[call-overload]

    def _check(self, x: Tensor, earlier: Tensor) -> None:
        for name, found, wanted in (("features", x, "channels"), ("features of the stage", earlier, "stage_channels")):
            if found.ndim != 4 or found.shape[1] != self._settings[wanted]:
                raise InputError(f"{name} {list(found.shape)}; this FUM takes [N,{self._settings[wanted]},h,w].")
        if self.context:
            check_positions(earlier, self.most_positions)


def _make_zero_convolution(channels: int, width: int) -> nn.Conv2d:
    """Make a 1x1 convolution whose weights are 0."""
    convolution = nn.Conv2d(channels, width, 1, bias=False)
    nn.init.zeros_(convolution.weight)
    return convolution
