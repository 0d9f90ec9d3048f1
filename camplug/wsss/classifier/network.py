"""A multi-label classifier that every explainer takes: a body, perhaps a neck, a 1x1 convolution, the mean."""

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
from camplug.explain.cam import find_pooled_head
from camplug.explain.preprocess import Preprocess, find_preprocess
from camplug.explain.tensor_ops import widen
from camplug.plug import dense, find_first_weight, unwrap
from camplug.wsss.classifier.body import Body, Cut, example, find_cut
from camplug.wsss.classifier.kept_head import find_rows, take_rows

NECKS = {"fum": "camplug.wsss.atm.fum:FUM", "regions": "camplug.wsss.rpnet.neck:RegionNeck"}


class Classifier(nn.Module):
    r"""Global average pooling over the class maps of a 1x1 convolution.

    .. math:: z_c = \frac1{hw} \sum_{x} M_c(x) + b_c, \qquad M_c(x) = \sum_k w_{ck} f_k(x)

    (Zhou et al., CVPR 2016: pooling before or after the linear head is the same.) The probability of a class is the
    sigmoid of its logit.

    Args:
        body: images [N,3,H,W] to feature maps [N,K,h,w].
        classes: their names.
        neck: between body and head, [N,K,h,w] to [N,J,h,w]; None for nothing.
        output_stride: pixels of the image per position, finer than as built by dilated convolutions (see
            `camplug.dense`); None leaves the body as it is.
        bias: of the head.
        preprocess: how photographs are read.

    Attributes:
        classes: their names, which explainers print.
        multi_label: the classes do not exclude each other, so explainers print sigmoids.

    Raises:
        ModelError: the body puts out no feature maps, or cannot have that output stride.
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
        self.preprocess = reading(body.model) if preprocess is None else preprocess
        weight = find_first_weight(body)
        with torch.no_grad():
            width = _evaluated(self, example(body.model)).shape[1]
        self.head = nn.Conv2d(width, len(self.classes), 1, bias=bias)
        if weight is not None:
            self.head.to(weight)

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """How photographs are read, in timm's words."""
        p = self.preprocess
        return {
            "input_size": (3, *p.size),
            "mean": p.mean,
            "std": p.std,
            "interpolation": p.interpolation,
            "fixed_input_size": not p.keep_aspect,
        }

    def features(self, x: Tensor) -> Tensor:
        """What the head reads, [N,J,h,w], of normalised images [N,3,H,W]."""
        with nullcontext() if self.output_stride is None else dense(self.body, self.output_stride):
            output: Tensor = self.neck(self.body(x))
        return output

    def class_maps(self, features: Tensor) -> Tensor:
        """M [N,C,h,w] of features [N,J,h,w]: CAMs that are not rectified, without the head's bias.

        At least float32, also in autocast: half of it has no room for the epsilons that maps are divided with, nor for
        the gradients that come of it.
        """
        with torch.autocast(features.device.type, enabled=False):
            x = features.to(self.head.weight.dtype)
            # the bias is left out, not subtracted: then it gets no gradient either
            return widen(self.head(x) if self.head.bias is None else F.conv2d(x, self.head.weight))

    def logits(self, maps: Tensor) -> Tensor:
        """The logits [N,C] of class maps [N,C,h,w]."""
        pooled = self.pooled(maps)
        return pooled if self.head.bias is None else pooled + self.head.bias.to(pooled)

    def pooled(self, maps: Tensor) -> Tensor:
        """The mean of every map, [N,C,h,w] to [N,C]."""
        return maps.mean((2, 3))

    @override
    def forward(self, x: Tensor) -> Tensor:
        """The logits [N,C] of normalised images [N,3,H,W]."""
        return self.pooled(self.head(self.features(x)))


def over(
    model: nn.Module,
    classes: Sequence[str],
    *,
    neck: Mapping[str, Any] | None = None,
    output_stride: int | None = None,
    keep_head: bool | None = None,
    preprocess: Preprocess | None = None,
) -> Classifier:
    """A classifier on any network, which is copied and left as it is.

    Args:
        model: a timm or torchvision model, a trained classifier, or a module that puts out its last feature map.
        classes: their names.
        neck: between body and head: its kind ("fum", "regions") and settings, without its channels. Behind a new one
            that learns, the head is new, too.
        output_stride: see `Classifier`.
        keep_head: keep the trained head, so that the classifier gives the very logits of the model, in the order of
            `classes`; by default where it has these classes. They are matched by name; a model without class names
            has them where it has as many. Otherwise the head is new.
        preprocess: how photographs are read, if the model does not say it itself.

    Raises:
        InputError: no class, or a neck of an unknown kind; a head of other classes is to be kept.
        ModelError: the network has no feature map to cut it at, or no head that can be kept.
    """
    if not classes:
        raise InputError("there is no class to tell apart; the data set needs at least one.")
    model = copy.deepcopy(unwrap(model)).eval()
    if isinstance(model, Classifier):
        return _renewed(model, classes, neck, output_stride, keep_head)
    reads = reading(model) if preprocess is None else preprocess
    x = torch.rand(example(model).shape, generator=torch.Generator().manual_seed(0)).to(example(model))
    try:
        head = find_pooled_head(model, x)
        cut = find_cut(model, head.layer, relu=head.relu)
    except ModelError:
        if keep_head:
            raise ModelError(_no_such_head(0, len(classes), None)) from None
        head, cut = None, find_cut(model)
    body = Body(model, cut)
    between = None if neck is None else _neck(neck, body)
    has = 0 if head is None else len(head.weight)
    rows = find_rows(model, has, classes, keep_head)
    fits = rows is not None and _learns_nothing(between)
    if keep_head and not fits:
        raise ModelError(_no_such_head(has, len(classes), None if _learns_nothing(between) else neck))
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
            network.head.weight.copy_(head.weight[rows, :, None, None])
            network.head.bias.copy_(head.bias[rows])
    return network.eval()


def rebuilt(
    model: nn.Module, settings: Mapping[str, Any], classes: Sequence[str], preprocess: Preprocess
) -> Classifier:
    """The untrained network of `settings_of`, over a network that is kept and changed."""
    body = Body(model.eval(), Cut(**settings["cut"]))
    neck = settings["neck"]
    return Classifier(
        body,
        classes,
        neck=None if neck is None else _neck(neck, body),
        output_stride=settings["output_stride"],
        bias=settings["bias"],
        preprocess=preprocess,
    )


def settings_of(network: Classifier) -> dict[str, Any]:
    """How a classifier is built over its network, as plain data."""
    cut = network.body.cut
    kind = next((k for k, place in NECKS.items() if place.endswith(f":{type(network.neck).__name__}")), None)
    own: Any = network.neck
    return {
        "cut": {"layer": cut.layer, "way": cut.way, "relu": cut.relu},
        "neck": None if kind is None else {"kind": kind, **own.settings()},
        "output_stride": network.output_stride,
        "bias": network.head.bias is not None,
    }


def reading(model: nn.Module) -> Preprocess:
    """How a model says that it reads photographs; else in ImageNet's way."""
    found = find_preprocess(model)
    return found if isinstance(found, Preprocess) else Preprocess()


def _renewed(
    network: Classifier,
    classes: Sequence[str],
    neck: Mapping[str, Any] | None,
    output_stride: int | None,
    keep_head: bool | None,
) -> Classifier:
    """A classifier of ours as the start of another one."""
    same = neck is None or _same_neck(network, neck)
    if neck is not None and not same and _learns_nothing(network.neck):
        new = _neck(neck, network.body)
        if _learns_nothing(new):
            network.neck, same = new, True
    rows = find_rows(network, len(network.classes), classes, keep_head)
    fits = same and rows is not None
    if keep_head and not fits:
        raise ModelError(_no_such_head(len(network.classes), len(classes), None if same else neck))
    stride = network.output_stride if output_stride is None else output_stride
    if fits and keep_head is not False:
        assert rows is not None
        network.head = take_rows(network.head, rows)
        network.classes, network.output_stride = [str(c) for c in classes], stride
        return network
    new = _neck(neck, network.body) if neck is not None and not same else network.neck
    return Classifier(network.body, classes, neck=new, output_stride=stride, preprocess=network.preprocess).eval()


def _same_neck(network: Classifier, neck: Mapping[str, Any]) -> bool:
    own = settings_of(network)["neck"]
    return own is not None and all(own.get(key) == value for key, value in neck.items())


def _neck(settings: Mapping[str, Any], body: Body) -> nn.Module:
    """A neck of the wanted kind for what the body puts out."""
    kind = settings.get("kind")
    if kind not in NECKS:
        raise InputError(f"neck={kind!r}; allowed are {', '.join(NECKS)}.")
    place, _, name = NECKS[kind].partition(":")
    options = {k: v for k, v in settings.items() if k != "kind"}
    if "channels" not in options:
        with torch.no_grad():
            options["channels"] = body.eval()(example(body.model)).shape[1]
    neck: nn.Module = getattr(import_module(place), name)(**options)
    weight = find_first_weight(body)
    return neck if weight is None else neck.to(weight)


def _learns_nothing(neck: nn.Module | None) -> bool:
    """Whether a trained head still fits behind this neck."""
    return neck is None or not any(True for _ in neck.parameters())


def _evaluated(network: Classifier, x: Tensor) -> Tensor:
    """The features of an example, without touching running statistics."""
    return network.eval().features(x)


def _no_such_head(has: int, wanted: int, neck: Mapping[str, Any] | None) -> str:
    if neck is not None:
        return f"a head cannot be kept behind a new neck ({neck.get('kind')}); train it anew with keep_head=False."
    found = f"a head of {has} classes" if has else "no head that averages a map and weighs it"
    return f"the model has {found}, and the data set {wanted} classes; give a classifier trained on these classes."
