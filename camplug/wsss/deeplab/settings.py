"""Settings of DeepLab and its training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from camplug.errors import InputError
from camplug.plug.dense import check_stride
from camplug.wsss.train.schedule import ScheduleSettings
from camplug.wsss.train.settings import TrainSettings, check_counts

Head = Literal["large-fov", "aspp", "v3+"]
HEADS = get_args(Head)


@dataclass(frozen=True)
class SegmenterSettings:
    """Settings of a segmentation, checked by `Segmenter`.

    Args:
        scales: factors of the photographs' size, separated by commas.
        flip: segment mirrored photographs, too.
        fuse: mean of the views' probabilities, or max of their logits.
        long_side: longer side that photographs are first resized to; none keeps their own size.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    fuse: Literal["mean", "max"] = "mean"
    long_side: int | None = None


def make_default_schedule() -> ScheduleSettings:
    """Return the SGD settings of the second DeepLab, with 0.9 as momentum and as power of the decay."""
    return ScheduleSettings("sgd", lr=2.5e-4, momentum=0.9, weight_decay=5e-4, power=0.9)


@dataclass(frozen=True)
class DeepLabNetworkSettings:
    """Settings of a DeepLab network, its loss and optimizer; by default the second DeepLab (Chen et al., PAMI 2018).

    Args:
        head: "large-fov" (DeepLab of 2015), "aspp" (of PAMI 2018) or "v3+" (ECCV 2018, with a decoder at stride 4).
        output_stride: pixels per position of the body's last map, by dilation: 8 or 16; none leaves it as built.
        width: hidden channels of the heads large-fov (1024 in the paper) and v3+.
        dilations: dilations of the 3x3 convolutions in the head; none for the usual ones, which are 12; 6,12,18,24;
            12,24,36 at stride 8 and half of it at 16.
        loss: "ce", cross-entropy over all pixels, or "balanced", half of it over background, half over objects.
        drop_large_losses: share of each class's pixels in a batch that do not count, those of the largest losses, which
            are often mislabelled; it rises from 0 over the first half of the training. 0 counts all. Processes that
            share a batch select in their own parts.
        loss_scales: image scales whose losses are added in training; with several ones the loss of their largest logits
            is added, too: 1,0.75,0.5 in the paper.
        batch_norm: "fixed" keeps the body's statistics, scales and shifts; "train" trains them, for networks that start
            from random weights. A head's own is always trained.
        cut: end of the frozen part: layers up to the last map of this stride (8, say), or up to the layer of this name,
            are not trained; none trains all.
        head_lr: learning rate of the head's weights relative to the body's; its biases have twice that and no weight
            decay.
        schedule: optimizer and learning-rate schedule of the body. The published code updates the rate at every 10th
            step, this one at every step.
        refinement: alpha, weight of the activation-aware term (0.08 in the paper); 0 leaves it out.
        saliency_threshold: saliency below which a pixel is background.

    Raises:
        InputError: an option is out of range.
    """

    head: Head = "aspp"
    output_stride: int | None = 16
    width: int = 256
    dilations: tuple[int, ...] | None = None
    loss: Literal["ce", "balanced"] = "ce"
    drop_large_losses: float = 0.0
    loss_scales: tuple[float, ...] = (1.0,)
    batch_norm: Literal["fixed", "train"] = "fixed"
    cut: int | str | None = None
    head_lr: float = 10.0
    schedule: ScheduleSettings = field(default_factory=make_default_schedule)
    refinement: float = 0.0
    saliency_threshold: float = 0.5

    def __post_init__(self) -> None:
        for name, allowed in (("head", HEADS), ("loss", ("ce", "balanced")), ("batch_norm", ("fixed", "train"))):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}={getattr(self, name)!r}; allowed are {', '.join(allowed)}.")
        if self.output_stride is not None:
            check_stride(self.output_stride)
        check_counts(self, "width")
        if self.dilations is not None and (not self.dilations or min(self.dilations) < 1):
            raise InputError(f"dilations={self.dilations}; give whole numbers from 1 on, or none for the usual ones.")
        if self.head == "large-fov" and self.dilations is not None and len(self.dilations) != 1:
            raise InputError(f"dilations={self.dilations}; the head large-fov has one.")
        if not self.loss_scales or not all(0 < scale <= 4 for scale in self.loss_scales):
            raise InputError(f"loss_scales={self.loss_scales}; give factors above 0, up to 4, such as 1,0.75,0.5.")
        for name in ("head_lr", "refinement"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)}; give 0 or more.")
        if not 0 <= self.drop_large_losses < 1:
            raise InputError(
                f"drop_large_losses={self.drop_large_losses}; give a share of the pixels from 0 to below 1, as 0.1."
            )
        if not 0 < self.saliency_threshold <= 1:
            raise InputError(f"saliency_threshold={self.saliency_threshold}; give a value above 0, at most 1.")
        if isinstance(self.cut, int) and self.cut < 1:
            raise InputError(f"cut={self.cut}; give a stride in pixels such as 8, the name of a layer, or none.")


@dataclass(frozen=True)
class DeepLabSettings:
    """Settings of `train_deeplab`.

    Args:
        network: network, loss, optimizer and learning rate.
        training: epochs, batches and crops. A crop side that is a multiple of 32 aligns the grid with the image as in
            inference.
        accumulate: batches per step of the optimizer (the published code: 2 of 5 images).

    Raises:
        InputError: less than one batch per step.
    """

    network: DeepLabNetworkSettings = field(default_factory=DeepLabNetworkSettings)
    training: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=20, batch=10, crop=320, scales=(0.5, 1.5))
    )
    accumulate: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "accumulate")
