"""DeepLab: body of any network at a fine output stride, with a segmentation head."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError, ModelError
from camplug.images.preprocess import Preprocess
from camplug.models.preprocess import find_preprocess
from camplug.plug import Tape, dense, find_first_weight, find_size_multiple, get_patch_size, to_grid, unwrap
from camplug.wsss.classifier.body import Body, Cut, make_example
from camplug.wsss.classifier.network import Classifier, build_classifier
from camplug.wsss.classifier.stages import Stage, find_stage_layers
from camplug.wsss.data.read_files import MAX_CLASSES
from camplug.wsss.deeplab.heads import ASPP, LargeFOV, V3Plus, get_dilations
from camplug.wsss.deeplab.settings import DeepLabNetworkSettings, Head

LOW_STRIDE = "4"


class DeepLab(nn.Module):
    """Segmentation network of a body and one of the heads of `camplug.wsss.deeplab.heads`.

    Args:
        body: feature extractor, [N,3,H,W] to [N,C,h,w].
        classes: names of the K foreground classes.
        head: "large-fov", "aspp" or "v3+".
        width: hidden channels of large-fov and v3+.
        dilations: dilations of the head; None for `get_dilations`.
        output_stride: image pixels per position of the body's map, made finer by dilated convolutions (see
            `camplug.dense`); None leaves the body as it is.
        preprocess: normalisation of photographs; None uses the body's own.
        low: layer of the body with the finer map of v3+; None for the last one of stride 4.

    Attributes:
        classes: names of the foreground classes; logit 0 is background, logit c + 1 class c.
        preprocess: normalisation of photographs.
        output_stride: output stride as given.
        stride: actual image pixels per position of the body's map.

    Raises:
        ModelError: the body cannot have that output stride.
        InputError: no class, more classes than label pictures can name, or no map of stride 4 for v3+.
    """

    def __init__(
        self,
        body: Body,
        classes: Sequence[str],
        *,
        head: Head = "aspp",
        width: int = 256,
        dilations: Sequence[int] | None = None,
        output_stride: int | None = None,
        preprocess: Preprocess | None = None,
        low: Stage | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= len(classes) <= MAX_CLASSES:
            raise InputError(f"there are {len(classes)} classes; label pictures can name 1 to {MAX_CLASSES}.")
        self.body = body
        self.output_stride = output_stride
        self.classes = [str(name) for name in classes]
        self.preprocess = find_preprocess(body.model) if preprocess is None else preprocess
        if head == "v3+" and low is None:
            (low,) = find_stage_layers(body, [LOW_STRIDE], "the decoder's stride")
        self.low = low if head == "v3+" else None
        x = make_example(body.model)
        with torch.no_grad():
            body.eval()
            features, finer = self.features(x)
        multiple = find_size_multiple(body)  # a patch's side need not be a power of 2
        self.stride = multiple if multiple > 1 else 2 ** round(math.log2(x.shape[-1] / features.shape[-1]))
        self.kind, self.width = head, width
        self.dilations = tuple(get_dilations(head, self.stride) if dilations is None else dilations)
        channels, count = features.shape[1], len(self.classes) + 1
        self.head: nn.Module
        if head == "large-fov":
            self.head = LargeFOV(channels, count, width, self.dilations)
        elif head == "aspp":
            self.head = ASPP(channels, count, self.dilations)
        else:
            assert finer is not None
            self.head = V3Plus(channels, finer.shape[1], count, width, self.dilations)
        weight = find_first_weight(body)
        if weight is not None:
            self.head.to(weight)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the body's last map [N,C,h,w] from normalised images [N,3,H,W], and the finer map of v3+."""
        with nullcontext() if self.output_stride is None else dense(self.body, self.output_stride):
            if self.low is None:
                return self.body(x), None
            with Tape(self.body, [self.low.layer], grad=True) as tape:
                last: Tensor = self.body(x)
                finer = next(a for layer, a in tape.captures if layer.call == self.low.call)
        size, patch = (x.shape[-2], x.shape[-1]), get_patch_size(self.body.model)
        return last, to_grid(finer, size, patch, self.low.layer)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Compute logits [N,K+1,h,w] from normalised images [N,3,H,W], on the head's grid."""
        logits: Tensor = self.head(*self.features(x))
        return logits


def build_deeplab(
    model: nn.Module,
    classes: Sequence[str],
    settings: DeepLabNetworkSettings | None = None,
    *,
    preprocess: Preprocess | None = None,
) -> DeepLab:
    """Build a DeepLab network with a new head on a copy of any network.

    Args:
        model: timm or torchvision model, trained `Classifier` or `DeepLab` (only its body is used), or module that
            returns its last feature map.
        classes: names of the foreground classes.
        settings: settings of the network.
        preprocess: normalisation of photographs; None uses the model's own.

    Raises:
        InputError: no class, or no map of stride 4 for v3+.
        ModelError: the network has no feature map, or cannot have that output stride.
    """
    settings = DeepLabNetworkSettings() if settings is None else settings
    model = unwrap(model)
    base: Any
    if isinstance(model, DeepLab):
        base = copy.deepcopy(model)
    else:
        with torch.random.fork_rng(devices=[]):  # for a head that is not used
            base = build_classifier(model, classes, keep_head=False, preprocess=preprocess)
    stride = settings.output_stride
    if stride is None and isinstance(model, (Classifier, DeepLab)):
        stride = model.output_stride
    try:
        return DeepLab(
            base.body,
            classes,
            head=settings.head,
            width=settings.width,
            dilations=settings.dilations,
            output_stride=stride,
            preprocess=base.preprocess if preprocess is None else preprocess,
        ).eval()
    except ModelError as error:
        if stride is None:
            raise
        hint = "for its own output stride, give output_stride=None (--output-stride none)"
        raise ModelError(f"{str(error).rstrip('.')}; {hint}.") from None


def get_deeplab_settings(network: DeepLab) -> dict[str, Any]:
    """Return the architecture of a DeepLab network as plain data."""
    cut = network.body.cut
    return {
        "cut": {"layer": cut.layer, "way": cut.way, "relu": cut.relu},
        "head": network.kind,
        "width": network.width,
        "dilations": list(network.dilations),
        "output_stride": network.output_stride,
        "low": None if network.low is None else list(network.low),
    }


def rebuild_deeplab(
    model: nn.Module, settings: Mapping[str, Any], classes: Sequence[str], preprocess: Preprocess
) -> DeepLab:
    """Build the untrained network of `get_deeplab_settings` on a network, which is changed in place."""
    model = unwrap(model).eval()
    cut = Cut(**settings["cut"])
    if isinstance(model, (Classifier, DeepLab)):
        if model.body.cut != cut:
            raise ModelError("the body of the given network ends at another layer.")
        body = model.body
    else:
        body = Body(model, cut)
    options = {k: settings[k] for k in ("head", "width", "dilations", "output_stride")}
    low = None if settings["low"] is None else Stage(*settings["low"])
    return DeepLab(body, classes, preprocess=preprocess, low=low, **options).eval()
