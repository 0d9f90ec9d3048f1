"""Training of AffinityNet, from seeds to a file of its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from camplug.explain.preprocess import Preprocess
from camplug.plug.layers import Selector
from camplug.wsss.affinitynet.checkpoint import load_affinitynet
from camplug.wsss.affinitynet.labels import make_alpha_labels
from camplug.wsss.affinitynet.lightning_module import AffinityNet
from camplug.wsss.affinitynet.network import STRIDE
from camplug.wsss.affinitynet.settings import AffinityNetSettings
from camplug.wsss.data import SegmentationData
from camplug.wsss.pseudo.refine import resolve_crf
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.train import Backbone
from camplug.wsss.train.progress import ProgressCallback
from camplug.wsss.train.train_heads import HeadsTask, Trained, train_heads


def train_affinitynet(
    model: nn.Module,
    data: SegmentationData,
    labels_from: SeedFolder | Path,
    out: str | Path,
    settings: AffinityNetSettings | None = None,
    *,
    layers: Selector = "stages",
    preprocess: Preprocess | None = None,
    workers: int = 0,
    amp: bool = True,
    allow_missing: bool = False,
    overwrite: bool = False,
    made_with: Mapping[str, Any] | None = None,
    watch: ProgressCallback | None = None,
) -> Trained[AffinityNet]:
    """Train AffinityNet on a classifier: its labels, its head, and at last `out`/affinitynet.pt.

    Stopped at any moment, the same call goes on where it was, and ends with the same head. Images without a seed, or
    with a broken photograph, are left out and told. Trains on the model's device; the model is left as it is. Under
    torchrun every process makes the same call and gets the same result.

    Args:
        model: a classifier.
        data: photographs; labels and masks are not read.
        labels_from: the seeds that labels are made of, or a folder of ready-made label pictures.
        out: folder for labels, checkpoints, losses and the head.
        settings: of labels, network and training.
        layers: of the model, that the head reads; see `Backbone`.
        preprocess: normalisation of photographs; None uses the model's own.
        workers: processes that load images.
        amp: half precision where it is safe; on CUDA only.
        allow_missing: see `train_classifier`; seeds and label pictures may be missing in any number.
        overwrite: replace a training of other settings or images in `out`; by default it raises.
        made_with: specification of the model, stored with the head; see `save_heads`.
        watch: progress callback.

    Raises:
        InputError: `out` holds a training of other settings; no image has labels; an option out of range.
        ModelError: a model without such layers; the loss became NaN or infinite.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    settings = AffinityNetSettings() if settings is None else settings
    alphas: dict[str, Any] = {"low": settings.low, "high": settings.high}

    stages = HeadsTask(
        kind="affinitynet",
        file="affinitynet.pt",
        network=asdict(settings.network),
        label_settings={"method": "affinitynet", **alphas},
        labels=lambda maps, crf: make_alpha_labels(maps, crf, **alphas),
        crf=resolve_crf(settings.crf),
        build=lambda backbone: AffinityNet(backbone, settings.network),
        stride=STRIDE,
        finish=lambda net, watch: None,
        load=lambda file: load_affinitynet(file, model),
        thresholds="alphas (low, high)",
        steady=settings.network.schedule.is_steady,
    )
    return train_heads(
        stages,
        Backbone(model, layers, preprocess),
        data,
        labels_from,
        Path(out),
        settings=settings.training,
        workers=workers,
        amp=amp,
        allow_missing=allow_missing,
        overwrite=overwrite,
        made_with=made_with,
        watch=watch,
    )
