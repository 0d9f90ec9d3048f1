"""Training of IRNet, from seeds to a file of heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from typing_extensions import Unpack, override

from camplug.errors import InputError
from camplug.wsss.crf import DenseCRF
from camplug.wsss.data import SegmentationData
from camplug.wsss.irn.labels import make_ir_labels
from camplug.wsss.irn.lightning_module import IRN
from camplug.wsss.irn.network import STRIDE
from camplug.wsss.irn.settings import IRNSettings
from camplug.wsss.irn.training import set_mean_displacement
from camplug.wsss.pseudo.refine import Floats
from camplug.wsss.seeds import SeedFolder, compute_otsu_of_seeds
from camplug.wsss.train.heads_task import HeadsResult, HeadsTask
from camplug.wsss.train.options import HeadsOptions
from camplug.wsss.train.progress import ProgressCallback


def train_irn(
    model: nn.Module,
    data: SegmentationData,
    labels_from: SeedFolder | Path,
    out: str | Path,
    settings: IRNSettings | None = None,
    **options: Unpack[HeadsOptions],
) -> HeadsResult[IRN]:
    """Make the labels of IRNet, train its heads on a classifier and write `out`/irn.pt.

    After an interruption, the same call resumes and gives the same heads. Images without a seed or with an unreadable
    photograph are left out and reported. Training runs on the model's device; the model is not changed. Under torchrun
    every process makes the same call and gets the same result.

    Args:
        model: classifier.
        data: photographs; labels and masks are not read.
        labels_from: seeds to make labels from, or a folder of ready-made label pictures.
        out: folder for labels, checkpoints, losses and the heads.
        settings: settings of labels, network and training.
        options: see `HeadsOptions`.

    Raises:
        InputError: `out` holds a training of other settings, no image has labels, or an option is out of range.
        ModelError: the model does not have the layers, or the loss became NaN or infinite.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    return IRNTask(model, data, labels_from, out, settings, options).run()


class IRNTask(HeadsTask[IRN]):
    """Training of IRNet; see `train_irn`."""

    name = "irn"
    network_type = IRN
    settings_type = IRNSettings
    stride = STRIDE
    thresholds = "thresholds (foreground, background)"
    settings: IRNSettings

    @override
    def find_label_settings(self) -> dict[str, Any]:
        return {"method": self.name, **find_thresholds(self.settings, self.labels_from, self.data, self.watch)}

    @override
    def label(self, maps: Floats, crf: DenseCRF | None) -> NDArray[np.uint8]:
        return make_ir_labels(maps, crf, **{k: v for k, v in self.label_settings.items() if k != "method"})

    @override
    def finish(self, network: IRN) -> None:
        if network.displacement is not None:
            with self.watch.steps("mean displacement", len(self.data)) as step:
                set_mean_displacement(network, self.data, step)
            rows, columns = network.displacement.mean.tolist()
            self.watch.done(f"mean displacement: {rows:.3f} rows, {columns:.3f} columns of the grid")
        super().finish(network)


def find_thresholds(
    settings: IRNSettings, labels_from: SeedFolder | Path, data: SegmentationData, watch: ProgressCallback
) -> dict[str, float]:
    """Return the two thresholds of the labels, computed from the seeds where they are "otsu".

    Raises:
        InputError: the labels are ready-made, there are too few values, or the object threshold is below the background
            threshold.
    """
    given = {"background": settings.background, "foreground": settings.foreground}
    if "otsu" not in given.values():
        return {k: float(v) for k, v in given.items()}
    if not isinstance(labels_from, SeedFolder):
        raise InputError("thresholds by Otsu's method are read off seeds, and the labels are ready-made; leave it out.")
    cuts, _ = compute_otsu_of_seeds(labels_from, data.ids, 3, lambda images: watch.steps("values of the seeds", images))
    found = dict(zip(given, cuts, strict=True))
    thresholds = {k: found[k] if v == "otsu" else float(v) for k, v in given.items()}
    make_ir_labels(np.zeros((0, 1, 1)), None, **thresholds)  # checks their order
    low, high = thresholds.values()
    watch.done(f"labels: background up to {low:.3f}, objects above {high:.3f}, by the seeds' values (Otsu)")
    return thresholds
