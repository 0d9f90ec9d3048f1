"""Options that `fit` and all trainings share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from camplug.plug.layers import Selector
from camplug.wsss.train.progress import ProgressCallback

if TYPE_CHECKING:
    from camplug.images.preprocess import Preprocess
    from camplug.wsss.train.fit import Items


TrainDtype = Literal["auto", "float32", "bfloat16", "float16"]


class LoopOptions(TypedDict, total=False):
    """Options of `fit` and of all trainings.

    Attributes:
        workers: processes that load images; 0 by default.
        dtype: dtype of the products in forward and backward passes; weights, losses and optimizer stay float32. "auto",
            the default: mixed precision on CUDA, bfloat16 where the device supports it, else float16 with loss scaling;
            float32 on other devices. "bfloat16" trains faster on a CPU that has instructions for it (avx512_bf16,
            amx).
        log: "csv", the default, or "tensorboard", which needs that package.
    """

    workers: int
    dtype: TrainDtype
    log: Literal["csv", "tensorboard"]


class FitOptions(LoopOptions, total=False):
    """Options of `fit`.

    Attributes:
        device: "auto", the default, "cpu", "cuda", "cuda:1", ...
        progress: show a progress bar; True by default.
        watch: receiver of the steps; None by default.
        callbacks: additional Lightning callbacks.
        validation: items for validation after every epoch.
        best: name of a logged validation metric; the weights of the epoch with its maximum are kept, instead of the
            last ones.
        accumulate: batches per optimizer step, 1 by default; gradients are averaged.
        header: header of the network's file, as plain data, so that checkpoints can be used as models.
    """

    device: str
    progress: bool
    watch: ProgressCallback | None
    callbacks: tuple[Any, ...]
    validation: Items | None
    best: str | None
    accumulate: int
    header: Mapping[str, Any] | None


class TrainOptions(LoopOptions, total=False):
    """Options of all trainings.

    Attributes:
        preprocess: normalisation of photographs; by default the model's own.
        allow_missing: train although more than 5 % of the photographs or their image labels are missing or damaged; by
            default it raises. Such images are left out and reported, whether found before or during the training. Seeds
            and label pictures may be missing in any number.
        overwrite: replace a training of other settings or images in `out`; by default it raises.
        made_with: specification of the model, stored with the network: "model", "num_classes" and, for heads,
            "checkpoint". Models of `camplug.load_model` carry it.
        watch: progress callback.
    """

    preprocess: Preprocess | None
    allow_missing: bool
    overwrite: bool
    made_with: Mapping[str, Any] | None
    watch: ProgressCallback | None


class HeadsOptions(TrainOptions, total=False):
    """Options of `train_irn` and `train_affinitynet`.

    Attributes:
        layers: layers of the model that the heads read; see `Backbone`. "stages" by default.
    """

    layers: Selector


LOOP_DEFAULTS: LoopOptions = {"workers": 0, "dtype": "auto", "log": "csv"}
FIT_DEFAULTS: FitOptions = {
    **LOOP_DEFAULTS,
    "device": "auto",
    "progress": True,
    "watch": None,
    "callbacks": (),
    "validation": None,
    "best": None,
    "accumulate": 1,
    "header": None,
}
TRAIN_DEFAULTS: TrainOptions = {
    **LOOP_DEFAULTS,
    "preprocess": None,
    "allow_missing": False,
    "overwrite": False,
    "made_with": None,
    "watch": None,
}


def complete_options(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """Return keyword arguments with the defaults of those that are not given.

    Raises:
        TypeError: a name is unknown.

    >>> complete_options({"a": 2}, {"a": 0, "b": 1})
    {'a': 2, 'b': 1}
    """
    unknown = [name for name in options if name not in defaults]
    if unknown:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}; allowed are {', '.join(defaults)}.")
    return {**defaults, **options}
