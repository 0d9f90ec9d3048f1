"""Settings of classifier training and presets of published recipes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from camplug.errors import InputError
from camplug.wsss.train.schedule import ScheduleSettings
from camplug.wsss.train.settings import check_counts


@dataclass(frozen=True)
class LearningSettings:
    """Settings of the optimizer, the frozen layers and the loss of classifier training.

    Args:
        schedule: learning-rate schedule of the backbone.
        head_lr: learning rate of head and neck relative to the backbone's.
        cut: end of the frozen part: layers up to the last map of this stride (8, say), or up to the layer of this name,
            are not trained; None trains all.
        batch_norm: "fixed" uses the running statistics also in training (scales and shifts learn, as in the code of
            IRN); "train" updates them, for networks that start from random weights. A neck's is always trained.
        focal: power of the probability that weighs absent classes in the loss; 0 for none.

    Raises:
        InputError: an option is out of range.
    """

    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    head_lr: float = 10.0
    cut: int | str | None = 8
    batch_norm: Literal["fixed", "train"] = "fixed"
    focal: float = 0.0

    def __post_init__(self) -> None:
        if self.batch_norm not in ("fixed", "train"):
            raise InputError(f"batch_norm={self.batch_norm!r}; allowed are fixed and train.")
        for name in ("head_lr", "focal"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)}; give 0 or more.")
        if isinstance(self.cut, int) and self.cut < 1:
            raise InputError(f"cut={self.cut}; give a stride in pixels such as 8, the name of a layer, or none.")


@dataclass(frozen=True)
class SpanSettings:
    """Settings of the length of a classifier training and its crops.

    Args:
        epochs: passes over all images.
        batch: images per step.
        crop: side of the crops in pixels.
        sides: smallest and largest longer side of the photographs in pixels.
        seed: seed of all random numbers.

    Raises:
        InputError: an option is out of range.
    """

    epochs: int = 5
    batch: int = 16
    crop: int = 512
    sides: tuple[int, int] = (320, 640)
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "epochs", "batch", "crop", seed=self.seed)
        if not 1 <= self.sides[0] <= self.sides[1]:
            raise InputError(f"sides={self.sides}; give the smallest and the largest longer side in pixels.")


PRESETS: dict[str, tuple[LearningSettings, SpanSettings]] = {
    # Ahn, Cho & Kwak, CVPR 2019; their "momentum" of 0.9 is the power of the decay
    "irn": (LearningSettings(), SpanSettings()),
    "modern": (
        LearningSettings(
            ScheduleSettings(optimizer="adamw", lr=5e-4, weight_decay=0.05, warmup=0.2, shape="one-cycle"),
            head_lr=4.0,
            cut=None,
        ),
        SpanSettings(epochs=10, crop=448, sides=(320, 640)),
    ),
}


def get_preset(name: str) -> tuple[LearningSettings, SpanSettings]:
    """Return the settings of a published recipe.

    Raises:
        InputError: the name is unknown.
    """
    if name not in PRESETS:
        raise InputError(f"preset={name!r}; allowed are {', '.join(PRESETS)}.")
    return PRESETS[name]
