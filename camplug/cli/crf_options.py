"""The dense CRF that options name: a preset, and numbers of one's own in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from camplug.cli.numbers import NUMBERS, read_numbers
from camplug.errors import InputError

if TYPE_CHECKING:
    from camplug.wsss.crf import CRFSettings

Gaussian: TypeAlias = Annotated[
    str | None, typer.Option(help="SXY,COMPAT of the CRF's smoothness kernel.", show_default="as --crf has it")
]
Bilateral: TypeAlias = Annotated[
    str | None, typer.Option(help="SXY,SRGB,COMPAT of the CRF's appearance kernel.", show_default="as --crf has it")
]
Iterations: TypeAlias = Annotated[int | None, typer.Option(help="Updates of the CRF.", show_default="as --crf has it")]
OPTIONS: dict[str, Any] = {"crf": str, "crf_gaussian": NUMBERS, "crf_bilateral": NUMBERS, "crf_iterations": int}


def read_crf(chosen: Mapping[str, Any]) -> CRFSettings | None:
    """Return the CRF of the options `crf`, `crf_gaussian`, `crf_bilateral` and `crf_iterations`.

    Args:
        chosen: the options; `crf` is among them.

    Raises:
        InputError: no such preset; numbers that cannot be read or are out of range, or that change nothing.
    """
    from camplug.wsss.crf import PRESETS

    name = str(chosen["crf"])
    given = [option for option in OPTIONS if option != "crf" and chosen.get(option) is not None]
    if name == "none":
        if given:
            raise InputError(f"--{given[0].replace('_', '-')} has no effect with --crf none; leave it out.")
        return None
    if name not in PRESETS:
        raise InputError(f"--crf {name!r}; allowed are {', '.join(PRESETS)} and none.")
    numbers: dict[str, Any] = {}
    for option in given:
        if option == "crf_iterations":
            numbers["iterations"] = chosen[option]
        else:
            count = 2 if option == "crf_gaussian" else 3
            read = read_numbers(option, chosen[option], (count,))
            numbers[option.removeprefix("crf_")] = tuple(int(n) if n.is_integer() else n for n in read)
    return replace(PRESETS[name], **numbers)
