"""Values as JSON holds them."""

from __future__ import annotations

import math


def to_json_number(value: float | None, digits: int | None = None) -> float | None:
    """Return a number for JSON: None for NaN and infinity, which it does not have, rounded if wanted.

    >>> to_json_number(float("nan")), to_json_number(0.12345, 2)
    (None, 0.12)
    """
    if value is None or not math.isfinite(value):
        return None
    return float(value) if digits is None else round(float(value), digits)
