"""Attention transfer (ATM) and the focused-unfocused module (FUM) of Qin et al., TCSVT 2024.

A classifier sees each image three times: as it is, and with enhanced and decreased contrast and brightness. The class
maps of the three views are drawn together, and a merged map of the two adjusted views supervises the original one.
What trains (`ATMTraining`) needs lightning; the rest does not import it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camplug.wsss.atm.attention import Atrous, ChannelAttention, SpatialAttention
from camplug.wsss.atm.fum import FUM, context_relation
from camplug.wsss.atm.losses import background_planes, background_similarity_loss, similarity_loss
from camplug.wsss.atm.merge import belongs, merged_maps
from camplug.wsss.atm.method import ATM
from camplug.wsss.atm.views import DECREASED, ENHANCED, GreyChange, adjusted, saturated, warn_if_saturated

if TYPE_CHECKING:
    from camplug.wsss.atm.module import ATMTraining

__all__ = [
    "ATM",
    "DECREASED",
    "ENHANCED",
    "FUM",
    "ATMTraining",
    "Atrous",
    "ChannelAttention",
    "GreyChange",
    "SpatialAttention",
    "adjusted",
    "background_planes",
    "background_similarity_loss",
    "belongs",
    "context_relation",
    "merged_maps",
    "saturated",
    "similarity_loss",
    "warn_if_saturated",
]


def __getattr__(name: str) -> Any:
    if name == "ATMTraining":
        return import_module(f"{__name__}.module").ATMTraining
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
