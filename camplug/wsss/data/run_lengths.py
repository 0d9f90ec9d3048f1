"""Masks in COCO's compressed run lengths."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode a mask [H,W] as COCO's compressed run lengths: {"size": [H, W], "counts": text}.

    Raises:
        InputError: pycocotools is missing.
    """
    coded = import_pycocotools().encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in coded["size"]], "counts": coded["counts"].decode()}


def decode_run_lengths(counts: str | bytes) -> list[int]:
    """Decode COCO's compressed run lengths: outside and inside in turn, column by column.

    A character has five bits, the lowest first, and one bit that is set if more follow; from the fourth on, a run is
    the difference to the one before last.

    >>> decode_run_lengths("52203")
    [5, 2, 2, 2, 5]
    """
    text = counts.encode() if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs


def import_pycocotools(otherwise: str = "") -> Any:
    """Import pycocotools.mask.

    Args:
        otherwise: way to do without, for the message.

    Raises:
        InputError: it is missing.
    """
    try:
        return import_module("pycocotools.mask")
    except ImportError:
        hint = f"; {otherwise}." if otherwise else "."
        raise InputError(f'COCO\'s masks need pycocotools: pip install "camplug[coco]"{hint}') from None
