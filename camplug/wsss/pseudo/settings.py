"""Settings of label pictures and walked maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from camplug.errors import InputError
from camplug.wsss.crf.settings import CERTAINTY
from camplug.wsss.store.seed_folder import MapStorage


@dataclass(frozen=True)
class SizeSettings:
    """Size of the photographs that labels, walked maps or instances are made of.

    Args:
        long_side: longer side that larger photographs are first resized to; results are resized back; none keeps
            their own size.

    Raises:
        InputError: a side below 1.
    """

    long_side: int | None = None

    def __post_init__(self) -> None:
        check_long_side(self.long_side)

    def describe_size(self) -> dict[str, Any]:
        """Return the longer side as a setting of results; empty for photographs at their own size."""
        return {} if self.long_side is None else {"long_side": self.long_side}


@dataclass(frozen=True)
class WalkedMapSettings(MapStorage, SizeSettings):
    """Settings of walked maps that are stored.

    Raises:
        InputError: another type of stored maps, a size that they cannot have, or a side below 1.
    """

    def __post_init__(self) -> None:
        MapStorage.__post_init__(self)
        SizeSettings.__post_init__(self)


@dataclass(frozen=True)
class LabelSettings(SizeSettings):
    """Settings of label pictures.

    Args:
        certainty: probability of a pixel's label before the dense CRF.

    Raises:
        InputError: no probability between 0 and 1, or a side below 1.
    """

    certainty: float = CERTAINTY

    def __post_init__(self) -> None:
        super().__post_init__()
        check_certainty(self.certainty)


def check_certainty(certainty: float) -> None:
    """Check the initial probability of labels.

    Raises:
        InputError: it is not between 0 and 1.
    """
    if not 0 < certainty < 1:
        raise InputError(f"certainty={certainty:g}; give a probability between 0 and 1, such as 0.7.")


def check_long_side(long_side: int | None) -> None:
    """Check the maximum length of the longer side.

    Raises:
        InputError: it is below 1.
    """
    if long_side is not None and long_side < 1:
        raise InputError(f"long_side={long_side}; give at least 1 pixel.")
