"""Brush masks of Label Studio: runs of bytes, packed into bits.

32 bits hold the number of bytes (four per pixel, the last one tells the mask), 5 the length of a word less one, and 4
times 4 the possible lengths of counts less one. Each block has a bit that tells a run from a list, 2 bits for the
length of its count, its count less one, and one word (a run) or as many words as it counts (a list).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.exchange.shapes import encode_runs

CHANNELS, WORD, COUNTS = 4, 8, (3, 4, 8, 16)  # counts as Label Studio writes them
INSIDE = 128  # from this opacity on, a pixel belongs to the mask


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Encode a mask [H,W] as the bytes of Label Studio's "rle"."""
    bits = [f"{CHANNELS * mask.size:032b}{WORD - 1:05b}", *(f"{n - 1:04b}" for n in COUNTS)]
    for number, run in enumerate(encode_runs(mask)):
        left, value = CHANNELS * run, 255 * (number % 2)
        while left:
            count = min(left, 1 << COUNTS[-1])
            which = next(i for i, n in enumerate(COUNTS) if count <= 1 << n)
            bits.append(f"1{which:02b}{count - 1:0{COUNTS[which]}b}{value:0{WORD}b}")
            left -= count
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode_brush(packed: Sequence[int], size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """Decode the bytes of Label Studio's "rle" as a mask [H,W].

    Args:
        packed: bytes.
        size: height and width.
        where: file in messages.

    Raises:
        InputError: the bytes are damaged, or of another size.
    """
    try:
        data = bytes(packed)
        text, place = "".join(f"{byte:08b}" for byte in data), 0

        def read(count: int) -> int:
            nonlocal place
            place += count
            if place > len(text):
                raise ValueError("it ends too early")
            return int(text[place - count : place], 2)

        total, word = read(32), read(5) + 1
        counts = [read(4) + 1 for _ in range(4)]
        if total != CHANNELS * size[0] * size[1]:
            raise ValueError(f"it has {total} bytes, not {CHANNELS * size[0] * size[1]}")
        found, done = np.zeros(total, np.uint8), 0
        while done < total:
            is_run, which = read(1), read(2)
            count = read(counts[which]) + 1
            found[done : done + count] = read(word) if is_run else [read(word) for _ in range(min(count, total - done))]
            done += count
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where} has a brush mask that cannot be read ({error}).") from None
    return np.asarray(found.reshape(*size, CHANNELS)[..., -1] >= INSIDE)
