"""Settings of AffinityNet and its training."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from camplug.wsss.affinitynet.labels import make_alpha_labels
from camplug.wsss.crf import CRFSettings
from camplug.wsss.pseudo.refine import resolve_crf
from camplug.wsss.train.schedule import ScheduleSettings
from camplug.wsss.train.settings import TrainSettings


@dataclass(frozen=True)
class AffinityNetHeadSettings:
    """Settings of AffinityNet's head and its optimizer.

    Args:
        radius: pairs closer than this many grid positions are compared, in training and afterwards.
        width: channels of the features, a multiple of 56.
        schedule: optimizer and learning rate. The published code gives new layers ten times its rate of 0.1, and the
            weight decay 5e-4.
    """

    radius: int = 5
    width: int = 448
    schedule: ScheduleSettings = field(default_factory=lambda: ScheduleSettings(lr=1.0, weight_decay=5e-4))


@dataclass(frozen=True)
class AffinityNetSettings:
    """Settings of `train_affinitynet`; the defaults are those of the published code.

    Args:
        low: alpha of the labels' confident objects.
        high: alpha of the labels' confident background.
        crf: dense CRF of the labels; None for none.
        network: head, optimizer and learning rate.
        training: epochs, batches and crops.

    Raises:
        InputError: alphas in the wrong order; no such CRF.
    """

    low: float = 4.0
    high: float = 32.0
    crf: str | CRFSettings | None = "affinitynet"
    network: AffinityNetHeadSettings = field(default_factory=AffinityNetHeadSettings)
    training: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=8, batch=8, crop=448, scales=(1.0, 1.0))
    )

    def __post_init__(self) -> None:
        resolve_crf(self.crf)
        # fail here, not at the first image
        make_alpha_labels(np.zeros((0, 1, 1)), None, low=self.low, high=self.high)
