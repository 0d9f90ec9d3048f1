"""Training of AffinityNet, from seeds to a file of its head."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn
from typing_extensions import Unpack

from camplug.wsss.affinitynet.checkpoint import load_affinitynet
from camplug.wsss.affinitynet.labels import make_alpha_labels
from camplug.wsss.affinitynet.lightning_module import AffinityNet
from camplug.wsss.affinitynet.network import STRIDE
from camplug.wsss.affinitynet.settings import AffinityNetSettings
from camplug.wsss.data import SegmentationData
from camplug.wsss.pseudo.refine import resolve_crf
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.train.heads_task import HeadsOptions, HeadsTask
from camplug.wsss.train.progress import ProgressCallback
from camplug.wsss.train.train_heads import Trained, train_heads


def train_affinitynet(
    model: nn.Module,
    data: SegmentationData,
    labels_from: SeedFolder | Path,
    out: str | Path,
    settings: AffinityNetSettings | None = None,
    *,
    watch: ProgressCallback | None = None,
    **options: Unpack[HeadsOptions],
) -> Trained[AffinityNet]:
    """Make the labels of AffinityNet, train its head on a classifier and write `out`/affinitynet.pt.

    After an interruption, the same call resumes and gives the same head. Images without a seed or with an unreadable
    photograph are left out and reported. Training runs on the model's device; the model is not changed. Under torchrun
    every process makes the same call and gets the same result.

    Args:
        model: classifier.
        data: photographs; labels and masks are not read.
        labels_from: seeds to make labels from, or a folder of ready-made label pictures.
        out: folder for labels, checkpoints, losses and the head.
        settings: settings of labels, network and training.
        watch: progress callback.
        options: see `HeadsOptions`.

    Raises:
        InputError: `out` holds a training of other settings, no image has labels, or an option is out of range.
        ModelError: the model does not have the layers, or the loss became NaN or infinite.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    settings = AffinityNetSettings() if settings is None else settings
    alphas: dict[str, Any] = {"low": settings.low, "high": settings.high}
    task = HeadsTask(
        kind="affinitynet",
        file="affinitynet.pt",
        network=asdict(settings.network),
        training=settings.training,
        label_settings={"method": "affinitynet", **alphas},
        make_labels=lambda maps, crf: make_alpha_labels(maps, crf, **alphas),
        crf=resolve_crf(settings.crf),
        build=lambda backbone: AffinityNet(backbone, settings.network),
        stride=STRIDE,
        finish=lambda net, watch: None,
        load=lambda file: load_affinitynet(file, model),
        thresholds="alphas (low, high)",
        steady=settings.network.schedule.is_steady,
    )
    return train_heads(task, model, data, labels_from, Path(out), watch=watch or ProgressCallback(), **options)
