"""Training of AffinityNet, from seeds to a file of its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from typing_extensions import Unpack, override

from camplug.wsss.affinitynet.labels import make_alpha_labels
from camplug.wsss.affinitynet.lightning_module import AffinityNet
from camplug.wsss.affinitynet.network import STRIDE
from camplug.wsss.affinitynet.settings import AffinityNetSettings
from camplug.wsss.crf import DenseCRF
from camplug.wsss.data import SegmentationData
from camplug.wsss.pseudo.refine import Floats
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.train.heads_task import HeadsResult, HeadsTask
from camplug.wsss.train.options import HeadsOptions


def train_affinitynet(
    model: nn.Module,
    data: SegmentationData,
    labels_from: SeedFolder | Path,
    out: str | Path,
    settings: AffinityNetSettings | None = None,
    **options: Unpack[HeadsOptions],
) -> HeadsResult[AffinityNet]:
    """Make the labels of AffinityNet, train its head on a classifier and write `out`/affinitynet.pt.

    Works as `camplug.wsss.irn.train_irn`, with the same arguments and errors.
    """
    return AffinityNetTask(model, data, labels_from, out, settings, options).run()


class AffinityNetTask(HeadsTask[AffinityNet]):
    """Training of AffinityNet; see `train_affinitynet`."""

    name = "affinitynet"
    network_type = AffinityNet
    settings_type = AffinityNetSettings
    stride = STRIDE
    thresholds = "alphas (low, high)"
    settings: AffinityNetSettings

    @override
    def find_label_settings(self) -> dict[str, Any]:
        return {"method": self.name, "low": self.settings.low, "high": self.settings.high}

    @override
    def label(self, maps: Floats, crf: DenseCRF | None) -> NDArray[np.uint8]:
        return make_alpha_labels(maps, crf, low=self.settings.low, high=self.settings.high)
