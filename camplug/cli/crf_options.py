"""Options of the dense CRF: a preset and changes of its numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camplug.errors import InputError

if TYPE_CHECKING:
    from camplug.wsss.crf import CRFSettings


@dataclass(frozen=True)
class CRFNumbers:
    """Changes of a preset."""

    crf_gaussian: Annotated[
        tuple[float, float] | None,
        typer.Option(help="SXY,COMPAT of the CRF's smoothness kernel.", show_default="as --crf has it"),
    ] = None
    crf_bilateral: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="SXY,SRGB,COMPAT of the CRF's appearance kernel.", show_default="as --crf has it"),
    ] = None
    crf_iterations: Annotated[int | None, typer.Option(help="Updates of the CRF.", show_default="as --crf has it")] = (
        None
    )

    def list_given(self) -> list[str]:
        """Return the names of the options that are set."""
        return [name for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True)
class CRFOptions(CRFNumbers):
    """Preset and its changes."""

    crf: Annotated[str, typer.Option(help="Dense CRF: irn, affinitynet, deeplab or none.")] = "irn"

    def make_settings(self) -> CRFSettings | None:
        """Return the settings of the CRF; None for "none". Raises as `make_crf_settings`."""
        return make_crf_settings(self.crf, CRFNumbers(self.crf_gaussian, self.crf_bilateral, self.crf_iterations))


def make_crf_settings(crf: str | CRFSettings | None, numbers: CRFNumbers) -> CRFSettings | None:
    """Return the settings of a dense CRF.

    Args:
        crf: name of a preset, settings, or None or "none" for no CRF.
        numbers: changes of the preset.

    Raises:
        InputError: no such preset; numbers out of range or without effect.
    """
    from camplug.wsss.crf import PRESETS

    given = numbers.list_given()
    if crf in (None, "none"):
        if given:
            raise InputError(f"--{given[0].replace('_', '-')} has no effect with --crf none; leave it out.")
        return None
    if isinstance(crf, str) and crf not in PRESETS:
        raise InputError(f"--crf {crf!r}; allowed are {', '.join(PRESETS)} and none.")
    changes: dict[str, Any] = {name.removeprefix("crf_"): getattr(numbers, name) for name in given}
    for name in ("gaussian", "bilateral"):
        if name in changes:  # whole numbers as in the presets
            changes[name] = tuple(int(n) if float(n).is_integer() else n for n in changes[name])
    return replace(PRESETS[crf] if isinstance(crf, str) else crf, **changes)
