"""Settings of the dense CRF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from camplug.errors import InputError
from camplug.metrics.checks import check_whole

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


def resolve_settings(given: Any) -> CRFSettings:
    """Return settings unchanged, or those of a preset; raise InputError for unknown names."""
    if isinstance(given, CRFSettings):
        return given
    if isinstance(given, str) and given in PRESETS:
        return PRESETS[given]
    raise InputError(f"there is no CRF {given!r}; give {', '.join(map(repr, PRESETS))}, or CRFSettings(...).")
