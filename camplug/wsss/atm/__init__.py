"""Attention transfer (ATM) and the focused-unfocused module (FUM) of Qin et al., TCSVT 2024.

A classifier gets each image as it is, and with enhanced and decreased contrast and brightness. A loss makes the class
maps of the three views similar, and a merged map of the two adjusted views supervises the original one. `ATMTraining`
needs lightning; nothing else imports it.
"""

from typing import TYPE_CHECKING

from camplug.lazy import attach_lazy
from camplug.wsss.atm.attention import Atrous, ChannelAttention, SpatialAttention
from camplug.wsss.atm.fum import FUM, context_relation
from camplug.wsss.atm.losses import background_similarity_loss, make_background_planes, similarity_loss
from camplug.wsss.atm.merge import assign_classes, merge_maps
from camplug.wsss.atm.method import ATM
from camplug.wsss.atm.pyramid_fum import PyramidFUM
from camplug.wsss.atm.views import DECREASED, ENHANCED, GreyChange, adjust_grey, compute_saturation, warn_if_saturated

if TYPE_CHECKING:
    from camplug.wsss.atm.lightning_module import ATMTraining

__all__ = [
    "ATM",
    "DECREASED",
    "ENHANCED",
    "FUM",
    "ATMTraining",
    "Atrous",
    "ChannelAttention",
    "GreyChange",
    "PyramidFUM",
    "SpatialAttention",
    "adjust_grey",
    "make_background_planes",
    "background_similarity_loss",
    "assign_classes",
    "context_relation",
    "merge_maps",
    "compute_saturation",
    "similarity_loss",
    "warn_if_saturated",
]

__getattr__, __dir__ = attach_lazy(
    __name__,
    {
        ".lightning_module": ("ATMTraining",),
    },
)
