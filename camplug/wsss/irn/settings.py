"""Settings of IRNet and its training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from camplug.errors import InputError
from camplug.wsss.crf import CRFSettings
from camplug.wsss.irn.labels import make_ir_labels
from camplug.wsss.pseudo.refine import resolve_crf
from camplug.wsss.train.schedule import ScheduleSettings
from camplug.wsss.train.settings import TrainSettings

Otsu: TypeAlias = Literal["otsu"]


@dataclass(frozen=True)
class IRNHeadSettings:
    """Settings of IRNet's heads and their optimizer.

    Args:
        radius: pairs closer than this many grid positions are compared in training.
        width: channels of the displacement head; 0 leaves it out, and with it instances.
        schedule: optimizer and learning rate of the boundary head.
        displacement_lr: learning rate of the displacement head relative to the boundary head's; None is 10 for SGD, as
            in the paper, and 1 for AdamW, whose steps do not depend on the gradient's scale.
    """

    radius: int = 10
    width: int = 256
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    displacement_lr: float | None = None


@dataclass(frozen=True)
class IRNSettings:
    """Settings of `train_irn`; the defaults are those of the published code.

    Args:
        foreground: threshold of the labels above which a pixel is an object; "otsu" computes it from the seeds, as the
            published numbers fit the maps of one method.
        background: threshold of the labels up to which a pixel is background; a number or "otsu".
        crf: dense CRF of the labels; None for none.
        network: heads, optimizer and learning rate.
        training: epochs, batches and crops.

    Raises:
        InputError: thresholds in the wrong order; no such CRF.
    """

    foreground: float | Otsu = 0.30
    background: float | Otsu = 0.05
    crf: str | CRFSettings | None = "irn"
    network: IRNHeadSettings = field(default_factory=IRNHeadSettings)
    training: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=3, batch=32, crop=512, scales=(0.5, 1.5))
    )

    def __post_init__(self) -> None:
        resolve_crf(self.crf)
        # fail here, not at the first image
        given = {"foreground": self.foreground, "background": self.background}
        if wrong := [f"{k}={v!r}" for k, v in given.items() if isinstance(v, str) and v != "otsu"]:
            raise InputError(f"{wrong[0]}; give a number, or 'otsu'.")
        numbers = [v for v in given.values() if not isinstance(v, str)]
        one = {k: numbers[0] if isinstance(v, str) else v for k, v in given.items() if numbers}
        make_ir_labels(np.zeros((0, 1, 1)), None, **one)
