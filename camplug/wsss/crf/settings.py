"""Settings of the dense CRF and of pixel-adaptive refinement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from operator import index
from typing import Any, TypeAlias

from camplug.errors import InputError
from camplug.metrics.checks import check_whole

CERTAINTY = 0.7  # probability of labels that a CRF starts from, as in IRN and PSA
_MIN_DEVIATION = 1e-3  # smallest standard deviation: far below a pixel or a level


@dataclass(frozen=True)
class CRFSettings:
    """Pairwise terms and number of iterations of a dense CRF.

    Compat is the weight of a kernel, which rewards equal labels of neighbours (Potts model); 0 disables the kernel.

    Attributes:
        gaussian: smoothness kernel, (sxy [pixels], compat).
        bilateral: appearance kernel, (sxy [pixels], srgb [levels of 0..255], compat).
        iterations: number of mean-field updates; 0 gives the softmax of the unary.

    Raises:
        InputError: a standard deviation is below 0.001, a compat is below 0, or a value is not such a number.

    >>> from dataclasses import replace
    >>> replace(PRESETS["irn"], iterations=1)
    CRFSettings(gaussian=(3, 3), bilateral=(50, 5, 10), iterations=1)
    """

    gaussian: tuple[float, float]
    bilateral: tuple[float, float, float]
    iterations: int = 10

    def __post_init__(self) -> None:
        _check("gaussian", self.gaussian, ("sxy", "compat"))
        _check("bilateral", self.bilateral, ("sxy", "srgb", "compat"))
        if check_whole(self.iterations, "iterations") < 0:
            raise InputError(f"iterations={self.iterations}: give 0 or more.")


@dataclass(frozen=True)
class PARSettings:
    """Settings of `pixel_adaptive_refinement`; the defaults are those of AFA and ToCo.

    Attributes:
        dilations: distances of the neighbours, in pixels at `scale`.
        iterations: number of steps; 0 changes nothing but the resolution.
        w1: tolerance of colour differences in standard deviations, above 0.
        w2: weight of the distance relative to colour, 0 or more.
        scale: scale of the photograph at which maps are refined, in (0, 1].

    Raises:
        InputError: a value is out of its range.
    """

    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    iterations: int = 10
    w1: float = 0.3
    w2: float = 0.01
    scale: float = 0.5

    def __post_init__(self) -> None:
        distances = self.dilations if isinstance(self.dilations, (list, tuple)) else ()
        if min((_read_whole(d) for d in distances), default=0) < 1:
            raise InputError(
                f"dilations={self.dilations!r}; give whole numbers of pixels, each at least 1, such as (1, 2, 4)."
            )
        if _read_whole(self.iterations) < 0:
            raise InputError(f"iterations={self.iterations!r}; give a whole number of at least 0 (ToCo: 10).")
        if not (isinstance(self.w1, (int, float)) and 0 < self.w1 < float("inf")):
            raise InputError(f"w1={self.w1!r}; give a number above 0 (ToCo: 0.3).")
        if not (isinstance(self.w2, (int, float)) and 0 <= self.w2 < float("inf")):
            raise InputError(f"w2={self.w2!r}; give a number of at least 0 (ToCo: 0.01).")
        if not (isinstance(self.scale, (int, float)) and 0 < self.scale <= 1):
            raise InputError(f"scale={self.scale!r}; give a number above 0, up to 1 (ToCo: 0.5).")


Refinement: TypeAlias = CRFSettings | PARSettings


def _read_whole(value: Any) -> int:
    """Return a whole number; -1 for anything else."""
    try:
        return index(value)
    except TypeError:
        return -1


def _check(name: str, given: Any, parts: Sequence[str]) -> None:
    try:
        *deviations, compat = numbers = [float(number) for number in given]
    except (TypeError, ValueError):
        numbers = deviations = []
        compat = -1.0
    if len(numbers) != len(parts) or not all(map(isfinite, numbers)) or min(deviations) < _MIN_DEVIATION or compat < 0:
        raise InputError(
            f"{name}={given!r}: give ({', '.join(parts)}), standard deviations of {_MIN_DEVIATION} or more, compat 0 "
            "or more."
        )


PRESETS = {
    "irn": CRFSettings(gaussian=(3, 3), bilateral=(50, 5, 10), iterations=10),
    "affinitynet": CRFSettings(gaussian=(3, 3), bilateral=(80, 13, 10), iterations=10),
    "deeplab": CRFSettings(gaussian=(1, 3), bilateral=(67, 3, 4), iterations=10),
}
"""Published settings: IRN (AdvCAM, ReCAM, ...), PSA (SEAM, ...) and deeplab-pytorch (CLIP-ES)."""


REFINEMENTS: dict[str, Refinement] = {**PRESETS, "par": PARSettings()}
"""Settings of all refinements by name: the dense CRFs of `PRESETS`, and pixel-adaptive refinement (AFA, ToCo)."""


def resolve_settings(given: Any) -> CRFSettings:
    """Return settings of a dense CRF unchanged, or those of a preset; raise InputError for unknown names."""
    if isinstance(given, CRFSettings):
        return given
    if isinstance(given, str) and given in PRESETS:
        return PRESETS[given]
    raise InputError(f"there is no CRF {given!r}; give {', '.join(map(repr, PRESETS))}, or CRFSettings(...).")


def resolve_refinement(given: str | Refinement | None) -> Refinement | None:
    """Return the settings of a refinement by name; return settings and None unchanged.

    Raises:
        InputError: there is no such refinement.
    """
    if given is None or isinstance(given, PARSettings):
        return given
    if isinstance(given, str) and given in REFINEMENTS:
        return REFINEMENTS[given]
    if isinstance(given, str):
        raise InputError(
            f"there is no CRF {given!r}; give {', '.join(map(repr, REFINEMENTS))}, CRFSettings(...) or "
            "PARSettings(...)."
        )
    return resolve_settings(given)
