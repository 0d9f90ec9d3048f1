"""Lists of numbers on the command line and in files of options."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from camplug.errors import InputError

NUMBERS = (str, list, int, float)  # what a file of options may give them as


def read_numbers(name: str, given: Any, counts: Collection[int] = ()) -> tuple[float, ...]:
    """Return the numbers of a text with commas, of a list, or one number.

    Args:
        name: of the option, in messages.
        given: by the user.
        counts: how many there may be; any number of them where it is empty.

    Raises:
        InputError: they cannot be read, or are too many or too few.

    >>> read_numbers("mean", "0.485,0.456,0.406", (1, 3))
    (0.485, 0.456, 0.406)
    """
    parts = re.split(r"[\s,]+", given.strip()) if isinstance(given, str) else given
    parts = list(parts) if isinstance(parts, (list, tuple)) else [parts]
    try:
        numbers = tuple(float(part) for part in parts if not isinstance(part, bool))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != len(parts) or not numbers or (counts and len(numbers) not in counts):
        wanted = f"{' or '.join(map(str, counts))} numbers" if counts else "numbers"
        raise InputError(f"{name} = {given!r} cannot be read; give {wanted} separated by commas.")
    return numbers


def read_colour(name: str, given: Any) -> tuple[float, float, float] | None:
    """Return the three numbers of red, green and blue, of which one stands for all; None where none is given.

    Raises:
        InputError: other than one or three numbers.
    """
    if given is None:
        return None
    numbers = read_numbers(name, given, (1, 3))
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return red, green, blue
