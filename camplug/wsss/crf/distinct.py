"""Distinct values of a large integer array, by hashing in whole arrays: a fraction of the time of `np.unique`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

_EMPTY = -1
_ODD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: multiplicative hashing


def find_distinct(codes: Integers) -> tuple[Integers, NDArray[np.int32]]:
    """The distinct values of `codes`, and where each code stands among them.

    All codes are written to the slots of a table at once. Where several values share a slot, one of them stays there
    and the others go to the next round, under another hash. What is left to sort are the distinct values alone.

    Args:
        codes: any shape, contiguous, not negative.

    Returns:
        The values, sorted, [M]; and int32 numbers in the shape of `codes`, so that values[numbers] equals codes.

    >>> find_distinct(np.array([40, 7, 40, 9]))
    (array([ 7,  9, 40]), array([2, 0, 2, 1], dtype=int32))
    """
    flat = codes.reshape(-1)
    places = np.empty(flat.size, np.int64)
    rest, where, found = flat, None, []
    count, bits, factor = 0, max(8, (flat.size // 8).bit_length()), _ODD
    while rest.size:
        slots = _hash_codes(rest, factor, bits)
        table = np.full(1 << bits, _EMPTY, np.int64)
        table[slots] = rest
        stays = np.take(table, slots, mode="clip") == rest  # "clip" is take's fast path: every slot exists
        occupied = np.flatnonzero(table != _EMPTY)
        found.append(table[occupied])
        table[occupied] = np.arange(count, count + len(occupied))  # from values to places
        count += len(occupied)
        here = np.take(table, slots, mode="clip")
        if where is None:
            places, where = here, np.flatnonzero(~stays)
        else:
            places[where] = here
            where = where[~stays]
        bits += 2 if 2 * len(where) > rest.size else 0
        rest, factor = flat[where], factor + 2
    values = np.concatenate([np.empty(0, np.int64), *found])
    order = np.argsort(values)
    numbers = np.empty(count, np.int32)
    numbers[order] = np.arange(count, dtype=np.int32)
    return values[order], np.take(numbers, places, mode="clip").reshape(codes.shape)


def _hash_codes(codes: Integers, factor: int, bits: int) -> Integers:
    """The upper bits of a product with an odd number."""
    product = codes.view(np.uint64) * np.uint64(factor % 2**64)
    product >>= np.uint64(64 - bits)
    return product.view(np.int64)
