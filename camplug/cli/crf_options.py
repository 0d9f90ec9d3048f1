"""Options of the dense CRF or pixel-adaptive refinement: a preset and changes of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camplug.errors import InputError

if TYPE_CHECKING:
    from camplug.wsss.crf import CRFSettings, PARSettings, Refinement


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
    crf_iterations: Annotated[
        int | None, typer.Option(help="Updates of the CRF; steps of par.", show_default="as --crf has it")
    ] = None

    def list_given(self) -> list[str]:
        """Return the names of the options that are set."""
        return [name for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True)
class CRFOptions(CRFNumbers):
    """Preset and its changes."""

    crf: Annotated[
        str,
        typer.Option(
            help="Refinement of labels by colours: a dense CRF (irn, affinitynet or deeplab), par (pixel-adaptive "
            "refinement) or none."
        ),
    ] = "irn"

    def make_settings(self) -> Refinement | None:
        """Return the settings of the refinement; None for "none".

        Raises:
            InputError: no such preset; numbers out of range or without effect.
        """
        if self.crf == "par":
            return self._make_par_settings()
        numbers = CRFNumbers(self.crf_gaussian, self.crf_bilateral, self.crf_iterations)
        return make_crf_settings(self.crf, numbers, others=("par",))

    def _make_par_settings(self) -> PARSettings:
        from camplug.wsss.crf import PARSettings

        given = [name for name in ("crf_gaussian", "crf_bilateral") if getattr(self, name) is not None]
        if given:
            raise InputError(f"--{given[0].replace('_', '-')} has no effect with --crf par; leave it out.")
        return PARSettings() if self.crf_iterations is None else PARSettings(iterations=self.crf_iterations)


def make_crf_settings(
    crf: str | CRFSettings | None, numbers: CRFNumbers, others: Sequence[str] = ()
) -> CRFSettings | None:
    """Return the settings of a dense CRF.

    Args:
        crf: name of a preset, settings, or None or "none" for no CRF.
        numbers: changes of the preset.
        others: names that the option takes beside the presets, for messages.

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
        raise InputError(f"--crf {crf!r}; allowed are {', '.join([*PRESETS, *others])} and none.")
    changes: dict[str, Any] = {name.removeprefix("crf_"): getattr(numbers, name) for name in given}
    for name in ("gaussian", "bilateral"):
        if name in changes:  # whole numbers as in the presets
            changes[name] = tuple(int(n) if float(n).is_integer() else n for n in changes[name])
    return replace(PRESETS[crf] if isinstance(crf, str) else crf, **changes)
