"""Settings shared by trainings on label pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from camplug.errors import InputError


@dataclass(frozen=True)
class TrainSettings:
    """Epochs, batches and crops of a training; see `fit` and `LabelCrops`.

    Args:
        epochs: passes over all images.
        batch: images per step.
        crop: side of the crops in pixels.
        scales: smallest and largest factor of the photograph's size.
        long_side: longer side that photographs are first resized to; None keeps their own.
        seed: seed of all random numbers.

    Raises:
        InputError: less than one epoch or image; scales in the wrong order.
    """

    epochs: int
    batch: int
    crop: int
    scales: tuple[float, float]
    long_side: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "epochs", "batch", "crop", "long_side", seed=self.seed)
        if not 0 < self.scales[0] <= self.scales[1]:
            low, high = self.scales
            raise InputError(f"scales {low:g} and {high:g}: give the smallest and the largest factor, above 0.")


def check_counts(settings: Any, *names: str, seed: int = 0) -> None:
    """Check fields of settings that count something, and a seed.

    Args:
        settings: settings.
        names: names of the fields; None passes.
        seed: seed.

    Raises:
        InputError: a field is below 1, or the seed below 0.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"{name}={value}; give at least 1.")
    if seed < 0:
        raise InputError(f"seed={seed}; give 0 or more.")
