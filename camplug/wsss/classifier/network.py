"""Multi-label classifier that every explainer accepts: body, optional neck, 1x1 convolution, mean."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError, ModelError
from camplug.explain.cam import PooledHead, find_pooled_head
from camplug.explain.tensor_ops import widen
from camplug.images.preprocess import Preprocess
from camplug.models.preprocess import find_preprocess
from camplug.plug import dense, find_first_weight, unwrap
from camplug.wsss.classifier.body import Body, Cut, find_cut, make_example
from camplug.wsss.classifier.head_rows import find_rows, move_head, move_weight, take_rows, warn_of_lost_neck
from camplug.wsss.classifier.stages import find_neck_stage, run_with_stage

NECKS = {
    "fum": "camplug.wsss.atm.fum:FUM",
    "pyramid_fum": "camplug.wsss.atm.pyramid_fum:PyramidFUM",
    "regions": "camplug.wsss.rpnet.neck:RegionNeck",
}


class Classifier(nn.Module):
    r"""Classifier by global average pooling over the class maps of a 1x1 convolution.

    .. math:: z_c = \frac1{hw} \sum_{x} M_c(x) + b_c, \qquad M_c(x) = \sum_k w_{ck} f_k(x)

    (Zhou et al., CVPR 2016: pooling before or after the linear head is the same.) The probability of a class is the
    sigmoid of its logit.

    Args:
        body: feature extractor, [N,3,H,W] to [N,K,h,w].
        classes: class names.
        neck: module between body and head, [N,K,h,w] to [N,J,h,w]; None for no module.
        output_stride: image pixels per position, made finer by dilated convolutions (see `camplug.dense`); None leaves
            the body as it is.
        bias: add a bias to the head.
        preprocess: preprocessing of photographs; None uses the body's own.

    Attributes:
        classes: class names, which explainers print.
        multi_label: True: classes are not exclusive, so explainers print sigmoids.

    Raises:
        ModelError: the body returns no feature maps, or cannot have that output stride.
    """

    multi_label: ClassVar[bool] = True

    def __init__(
        self,
        body: Body,
        classes: Sequence[str],
        *,
        neck: nn.Module | None = None,
        output_stride: int | None = None,
        bias: bool = False,
        preprocess: Preprocess | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.neck = nn.Identity() if neck is None else neck
        self.output_stride = output_stride
        self.classes = [str(name) for name in classes]
        self.preprocess = find_preprocess(body.model) if preprocess is None else preprocess
        weight = find_first_weight(body)
        with torch.no_grad():
            width = self.eval().features(make_example(body.model)).shape[1]
        self.head = nn.Conv2d(width, len(self.classes), 1, bias=bias)
        if weight is not None:
            self.head.to(weight)

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """Preprocessing of photographs, in the format of timm."""
        p = self.preprocess
        return {
            "input_size": (3, *p.size),
            "mean": p.mean,
            "std": p.std,
            "interpolation": p.interpolation,
            "fixed_input_size": not p.keep_aspect,
        }

    def features(self, x: Tensor) -> Tensor:
        """Compute the features that the head reads, [N,J,h,w], from normalised images [N,3,H,W]."""
        with nullcontext() if self.output_stride is None else dense(self.body, self.output_stride):
            stage = getattr(self.neck, "stage", None)  # of a neck that reads an earlier map, too
            maps = (self.body(x),) if stage is None else run_with_stage(self.body, x, stage)
            output: Tensor = self.neck(*maps)
        return output

    def class_maps(self, features: Tensor) -> Tensor:
        """Compute class maps M [N,C,h,w] from features [N,J,h,w]: CAMs without ReLU and without the head's bias.

        At least float32, also under autocast: half precision cannot hold the epsilons of the normalisation and their
        gradients.
        """
        with torch.autocast(features.device.type, enabled=False):
            x = features.to(self.head.weight.dtype)
            # left out instead of subtracted, so that the bias gets no gradient
            return widen(self.head(x) if self.head.bias is None else F.conv2d(x, self.head.weight))

    def logits(self, maps: Tensor) -> Tensor:
        """Compute logits [N,C] from class maps [N,C,h,w]."""
        pooled = self.pooled(maps)
        return pooled if self.head.bias is None else pooled + self.head.bias.to(pooled)

    def pooled(self, maps: Tensor) -> Tensor:
        """Average every map, [N,C,h,w] to [N,C]."""
        return maps.mean((2, 3))

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Compute logits [N,C] from normalised images [N,3,H,W]."""
        return self.pooled(self.head(self.features(x)))


def build_classifier(
    model: nn.Module,
    classes: Sequence[str],
    *,
    neck: Mapping[str, Any] | None = None,
    output_stride: int | None = None,
    keep_head: bool | None = None,
    preprocess: Preprocess | None = None,
) -> Classifier:
    """Build a classifier on a copy of any network.

    Args:
        model: timm or torchvision model, trained classifier, or module that returns its last feature map.
        classes: class names.
        neck: kind ("pyramid_fum", "fum", "regions") and settings of the module between body and head, without its
            channels. A head that the model was trained with is kept behind "pyramid_fum" and "regions", whose maps are
            at first those of the model; any other new neck with parameters requires a new head.
        output_stride: see `Classifier`.
        keep_head: keep the trained head, so that the classifier gives the logits of the model, in the order of
            `classes`; by default it is kept where it has these classes. They are matched by name; a model without
            class names has them if the number agrees. Otherwise the head is new.
        preprocess: preprocessing of photographs; None uses the model's own.

    Raises:
        InputError: no class, an unknown kind of neck, or a head of other classes that must be kept.
        ModelError: the network has no feature map, or no head that can be kept.
    """
    if not classes:
        raise InputError("there is no class to tell apart; the data set needs at least one.")
    model = copy.deepcopy(unwrap(model)).eval()
    if isinstance(model, Classifier):
        return _reuse_classifier(model, classes, neck, output_stride, keep_head)
    reads = find_preprocess(model) if preprocess is None else preprocess
    head, cut = _find_head(model)
    if head is None and keep_head:
        raise ModelError(_explain_missing_head(0, len(classes), None))
    body = Body(model, cut)
    between = None if neck is None else _build_neck(neck, body)
    has = 0 if head is None else len(head.weight)
    rows = find_rows(model, has, classes, keep_head)
    fits = rows is not None and _fits_head(between, len(rows))
    if keep_head and not fits:
        raise ModelError(_explain_missing_head(has, len(classes), None if _fits_head(between, has) else neck))
    keeps = fits and keep_head is not False
    network = Classifier(
        body,
        classes,
        neck=between,
        output_stride=output_stride,
        bias=keeps,
        preprocess=replace(reads, long_side=None),
    )
    if keeps and head is not None and network.head.bias is not None:
        with torch.no_grad():
            network.head.weight.copy_(move_weight(head.weight[rows], between)[:, :, None, None])
            network.head.bias.copy_(head.bias[rows])
    return network.eval()


def _find_head(model: nn.Module) -> tuple[PooledHead | None, Cut]:
    """Find the trained head of a network, None if it has none that can be kept, and the end of its body."""
    example = make_example(model)
    x = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    try:
        head = find_pooled_head(model, x)
        return head, find_cut(model, head.layer, relu=head.relu)
    except ModelError:
        return None, find_cut(model)


def rebuild_classifier(
    model: nn.Module, settings: Mapping[str, Any], classes: Sequence[str], preprocess: Preprocess
) -> Classifier:
    """Build the untrained classifier of `get_classifier_settings` on a network, which is changed in place."""
    body = Body(model.eval(), Cut(**settings["cut"]))
    neck = settings["neck"]
    return Classifier(
        body,
        classes,
        neck=None if neck is None else _build_neck(neck, body),
        output_stride=settings["output_stride"],
        bias=settings["bias"],
        preprocess=preprocess,
    )


def get_classifier_settings(network: Classifier) -> dict[str, Any]:
    """Return the architecture of a classifier as plain data."""
    cut = network.body.cut
    kind = next((k for k, place in NECKS.items() if place.endswith(f":{type(network.neck).__name__}")), None)
    own: Any = network.neck
    return {
        "cut": {"layer": cut.layer, "way": cut.way, "relu": cut.relu},
        "neck": None if kind is None else {"kind": kind, **own.settings()},
        "output_stride": network.output_stride,
        "bias": network.head.bias is not None,
    }


def _reuse_classifier(
    network: Classifier,
    classes: Sequence[str],
    neck: Mapping[str, Any] | None,
    output_stride: int | None,
    keep_head: bool | None,
) -> Classifier:
    """Adapt a trained classifier to other classes, neck and stride."""
    same = neck is None or _has_neck(network, neck)
    if neck is not None and not same:
        warn_of_lost_neck(get_classifier_settings(network)["neck"], neck)
    rows = find_rows(network, len(network.classes), classes, keep_head)
    if neck is not None and not same and rows is not None and _fits_head(network.neck):
        new = _build_neck(neck, network.body)
        if _fits_head(new, len(network.classes)):
            network.head, network.neck, same = move_head(network.head, new), new, True
    fits = same and rows is not None
    if keep_head and not fits:
        raise ModelError(_explain_missing_head(len(network.classes), len(classes), None if same else neck))
    stride = network.output_stride if output_stride is None else output_stride
    if fits and keep_head is not False:
        assert rows is not None
        network.head = take_rows(network.head, rows)
        network.classes, network.output_stride = [str(c) for c in classes], stride
        return network
    new = _build_neck(neck, network.body) if neck is not None and not same else network.neck
    return Classifier(network.body, classes, neck=new, output_stride=stride, preprocess=network.preprocess).eval()


def _has_neck(network: Classifier, neck: Mapping[str, Any]) -> bool:
    own = get_classifier_settings(network)["neck"]
    return own is not None and all(own.get(key) == value for key, value in neck.items())


def _build_neck(settings: Mapping[str, Any], body: Body) -> nn.Module:
    """Build a neck for the channels of a body."""
    kind = settings.get("kind")
    if kind not in NECKS:
        raise InputError(f"neck={kind!r}; allowed are {', '.join(NECKS)}.")
    place, _, name = NECKS[kind].partition(":")
    options = {k: v for k, v in settings.items() if k != "kind"}
    if "channels" not in options:
        with torch.no_grad():
            options["channels"] = body.eval()(make_example(body.model)).shape[1]
    kind_of_neck = getattr(import_module(place), name)
    if getattr(kind_of_neck, "needs_stage", False) and "stage_channels" not in options:
        options["stage"], options["stage_channels"] = find_neck_stage(body, *filter(None, [options.get("stage")]))
    neck: nn.Module = kind_of_neck(**options)
    weight = find_first_weight(body)
    return neck if weight is None else neck.to(weight)


def _fits_head(neck: nn.Module | None, count: int | None = None) -> bool:
    """Return whether a trained head of `count` classes fits behind a new neck.

    It does if the neck has no parameters, keeps the channels, or takes such a head over.
    """
    if hasattr(neck, "take_head"):
        return count is not None and count <= int(getattr(neck, "width", 0))
    return neck is None or getattr(neck, "keeps_channels", False) or not any(True for _ in neck.parameters())


def _explain_missing_head(has: int, wanted: int, neck: Mapping[str, Any] | None) -> str:
    if neck is not None:
        return f"a head cannot be kept behind a new neck ({neck.get('kind')}); train it anew with keep_head=False."
    found = f"a head of {has} classes" if has else "no head that averages a map and weighs it"
    return f"the model has {found}, and the data set {wanted} classes; give a classifier trained on these classes."
