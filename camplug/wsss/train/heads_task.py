"""Description and options of a training of heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from camplug.images.preprocess import Preprocess
from camplug.plug.layers import Selector
from camplug.wsss.crf import CRFSettings, DenseCRF
from camplug.wsss.train.backbone import Backbone
from camplug.wsss.train.heads import Kind
from camplug.wsss.train.progress import ProgressCallback
from camplug.wsss.train.settings import TrainSettings

N = TypeVar("N", bound=nn.Module)


class HeadsOptions(TypedDict, total=False):
    """Options of `train_irn` and `train_affinitynet`.

    Attributes:
        layers: layers of the model that the heads read; see `Backbone`. "stages" by default.
        preprocess: normalisation of photographs; by default the model's own.
        workers: processes that load images; 0 by default.
        amp: mixed precision on CUDA; True by default.
        allow_missing: see `train_classifier`; seeds and label pictures may be missing in any number.
        overwrite: replace a training of other settings or images in `out`; by default it raises.
        made_with: specification of the model, stored with the heads; see `save_heads`.
    """

    layers: Selector
    preprocess: Preprocess | None
    workers: int
    amp: bool
    allow_missing: bool
    overwrite: bool
    made_with: Mapping[str, Any] | None


@dataclass(frozen=True)
class HeadsTask(Generic[N]):
    """Training of one kind of heads.

    Attributes:
        kind: kind of the heads.
        file: name of their file.
        network: settings of the network, as plain data.
        training: settings of the training.
        label_settings: settings of the labels without the CRF, as plain data.
        make_labels: function that makes the labels of an image from its maps [K,H,W] and the CRF of its photograph.
        crf: settings of the CRF; None for no CRF.
        build: constructor of the untrained network.
        stride: stride of the network's grid.
        finish: function called after training.
        load: loader of the network from its file.
        thresholds: name of the thresholds of the labels, for messages.
        steady: see `lengthen_training`.
    """

    kind: Kind
    file: str
    network: dict[str, Any]
    training: TrainSettings
    label_settings: dict[str, Any]
    make_labels: Callable[[NDArray[np.float32], DenseCRF | None], NDArray[np.uint8]]
    crf: CRFSettings | None
    build: Callable[[Backbone], N]
    stride: int
    finish: Callable[[N, ProgressCallback], None]
    load: Callable[[Path], N]
    thresholds: str
    steady: bool
