"""CAM (Zhou et al., 2016, arXiv 1512.04150): the head's weights applied to the map before pooling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import LayerError, ModelError, TargetError
from camplug.explain.base import LayerExplainer, Result
from camplug.explain.batch import (
    call_model,
    check_batch,
    check_size,
    choose_calls,
    find_class_logits,
    finish_maps,
)
from camplug.explain.fuse import Fusion
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.registry import register
from camplug.explain.tensor_ops import weighted_sum, widen
from camplug.plug import (
    Classes,
    Link,
    MapSize,
    Tape,
    Trace,
    get_logits,
    make_index,
    named_layers,
    resolve_classes,
    send_to,
    unwrap,
)
from camplug.plug.grid import CONVOLUTIONS


def cam(features: Tensor, weights: Tensor) -> Tensor:
    r"""Compute CAM (eq. 2), its positive part.

    .. math:: L = \mathrm{relu}\Big(\sum_k w_k A_k\Big)

    Args:
        features: A, input of global average pooling, [N,K,h,w].
        weights: w, the head's weights for each image's class, [N,K].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    return weighted_sum(widen(features), widen(weights)).clamp_min_(0)


# number of maps before the head that are tried
CANDIDATES = 6


@dataclass(frozen=True)
class _Head:
    """Layer with the class outputs, and candidates for the pooled map (none: the layer reads the map itself)."""

    name: str
    module: nn.Module
    features: tuple[str, ...]

    @cached_property
    def weight(self) -> Tensor:
        return widen(cast("Tensor", self.module.weight).detach()).flatten(1)

    @cached_property
    def bias(self) -> Tensor:
        bias = cast("Tensor | None", self.module.bias)
        return self.weight.new_zeros(len(self.weight)) if bias is None else widen(bias.detach())


@register("cam")
class CAM(LayerExplainer):
    """CAM: the head's weights applied to the pooled map; needs global average pooling and one layer after it.

    The head is the last linear layer or 1x1 convolution with one output per class. For a linear head, the pooled map is
    found by a check: its mean times the weights must equal the model's logits; other heads are refused. Needs one
    forward pass and no backward pass, for any number of classes.

    Raises:
        ModelError: the model has no such head (use GradCAM, which equals CAM where both exist).
    """

    needs_gradient: ClassVar[bool] = False

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        raise NotImplementedError("CAM needs the head's weights, not gradients")

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs, images_only=False)
        sizes, n = check_size(batch, size), len(batch)
        if callable(classes) and not isinstance(classes, Tensor):
            raise TargetError("CAM explains classes of the head, not a callable; use GradCAM for other scores.")
        model = unwrap(self.model)
        with torch.inference_mode(False):
            layers = named_layers(model)
            head = self._find_head(batch.trace(model), layers)
            with Tape(model, [head.name, *head.features], forward_only=True, image=batch.where) as tape:
                output = call_model(model, batch)
                link: Link | None = (
                    "logits" if head.features or self._is_mean_of_map(tape, head, output, batch) else None
                )
                targets = resolve_classes(classes, output, n, self.evidence, link=link)
                targets.check(output)
                with torch.autocast(batch.x.device.type, enabled=False):
                    fusions = self._fuse_rounds(tape, head, output, targets, batch)
                logits = find_class_logits(output, n)
        return Result(finish_maps(fusions, targets, batch.x, sizes, self.normalize), targets, logits)

    def _find_head(self, trace: Trace, layers: dict[str, nn.Module]) -> _Head:
        for i in reversed(range(len(trace.calls))):
            call = trace.calls[i]
            module = layers[call.name]
            if not _is_head(module, trace.classes):
                continue
            dims = 2 if trace.size is None else len(trace.size)
            if len(call.shape) == dims + 2 and math.prod(call.shape[2:]) > 1:
                return _Head(call.name, module, ())
            if self.layers != "last":
                return _Head(call.name, module, (self._get_layer_name(),))
            width = cast("Tensor", module.weight).shape[1]
            earlier = [c for c in reversed(trace.calls[:i]) if c.features]
            before = [c.name for c in earlier if _holds_map(c.shape, width, dims)]
            if not before:  # small image: the last map has a single position
                before = [c.name for c in earlier if c.shape[1:] == (width, *[1] * dims)]
            if before:
                return _Head(call.name, module, tuple(before[:CANDIDATES]))
            break
        raise ModelError(_describe_refusal(self.model))

    def _get_layer_name(self) -> str:
        names = Tape(self.model, self.layers, forward_only=True).names
        if len(names) != 1:
            raise LayerError(f"CAM reads the one map that the head pools; layers= names {len(names)} layers.")
        return names[0]

    def _fuse_rounds(self, tape: Tape, head: _Head, output: Any, targets: Any, batch: Batch) -> list[Fusion]:
        features = self._find_pooled_map(tape, head, output, batch)[1] if head.features else None
        fusions, n, device = [], len(batch), batch.x.device
        for r in range(targets.rounds):
            images, chosen = (make_index(device, numbers) for numbers in targets.get_round(r))
            signs = send_to(torch.tensor(targets.get_signs(r), dtype=head.weight.dtype), device)[:, None]
            fusion = Fusion(None)
            if features is not None:
                weights = head.weight.new_zeros(n, features.shape[1])
                weights[images] = head.weight[chosen] * signs
                fusion.add(cam(features, weights), features.shape[1])
            else:
                class_maps = widen(tape[head.name])
                one = class_maps.new_zeros(n, *class_maps.shape[2:])
                each = (-1, *[1] * (class_maps.ndim - 2))
                one[images] = (class_maps[images, chosen] - head.bias[chosen].view(each)) * signs.view(each)
                fusion.add(one.clamp_min_(0), 1)
            fusions.append(fusion)
        return fusions

    def _is_mean_of_map(self, tape: Tape, head: _Head, output: Any, batch: Batch) -> bool:
        """Return whether the model's single output is the mean of the head's map, and so a logit."""
        logits, maps = get_logits(output, len(batch)), widen(tape[head.name])
        if logits.shape[1] != 1 or maps.ndim != len(batch.spatial_size) + 2:
            return False
        return torch.allclose(maps.flatten(2).mean(2), widen(logits), rtol=1e-3, atol=1e-3 * float(maps.abs().max()))

    def _find_pooled_map(self, tape: Tape, head: _Head, output: Any, batch: Batch) -> tuple[str, Tensor, bool]:
        """Return the name of the pooled layer, its map, and whether only the positive part is pooled."""
        logits = get_logits(output, len(batch))
        tolerance = 0.05 if logits.dtype in (torch.float16, torch.bfloat16) else 1e-3
        calls = choose_calls(tape, self.call)
        for name in [name for name in head.features if any(layer.name == name for layer, _ in calls)]:
            layer, activation = next(c for c in reversed(calls) if c[0].name == name)
            features = widen(self.lay_on_grid(activation, layer, batch))
            if features.shape[1] != head.weight.shape[1]:
                raise LayerError(
                    f"the layer {layer} has {features.shape[1]} channels and the head reads {head.weight.shape[1]}; "
                    "CAM needs the map that the head pools."
                )
            if self.layers != "last":
                return name, features, False
            for relu in (False, True):  # DenseNet's last ReLU is no module
                candidate = features.clamp_min(0) if relu else features
                error = candidate.flatten(2).mean(2) @ head.weight.T + head.bias - widen(logits)
                if not error.abs().max() > tolerance * logits.abs().max():  # NaN passes; finish_maps refuses it
                    return name, candidate, relu
        raise ModelError(_describe_refusal(self.model))


class PooledHead(NamedTuple):
    """Trained classifier head.

    Attributes:
        layer: name of the pooled layer.
        relu: only the positive part of the map is pooled.
        weight: weights [C,K].
        bias: biases [C].
    """

    layer: str
    relu: bool
    weight: Tensor
    bias: Tensor


def find_pooled_head(model: nn.Module, x: Tensor) -> PooledHead:
    """Find the head of a classifier with global average pooling, checked on images x [N,3,H,W] as in `CAM`.

    Raises:
        ModelError: the model has no such head.
    """
    return read_pooled_map(CAM(model), Batch(x))[1]


def read_pooled_map(explainer: CAM, batch: Batch) -> tuple[Tensor, PooledHead]:
    """Run the model, and return the map [N,K,h,w] that it pools, and the head that reads the pooled map.

    Raises:
        ModelError: the model has no such head.
    """
    model = unwrap(explainer.model)
    layers = named_layers(model)
    head = explainer._find_head(batch.trace(model), layers)
    if not head.features:
        raise ModelError(_describe_refusal(model))
    with Tape(model, [head.name, *head.features], forward_only=True, image=batch.where) as tape:
        name, features, relu = explainer._find_pooled_map(tape, head, call_model(model, batch), batch)
    return features, PooledHead(name, relu, head.weight, head.bias)


def _is_head(module: nn.Module, classes: int | None) -> bool:
    """Return whether a module is a linear layer or 1x1 convolution with one output per class."""
    if isinstance(module, nn.Linear):
        return module.out_features == classes
    if not isinstance(module, tuple(CONVOLUTIONS)):
        return False
    conv = cast("nn.Conv2d", module)
    return set(conv.kernel_size) == {1} and conv.groups == 1 and conv.out_channels == classes


def _holds_map(shape: tuple[int, ...], width: int, dims: int) -> bool:
    """Return whether an output of this shape can be a map of `width` channels with several positions."""
    if dims != 2:
        return len(shape) == dims + 2 and shape[1] == width and math.prod(shape[2:]) > 1
    if len(shape) == 4:
        return (shape[1] == width and shape[2] * shape[3] > 1) or (shape[3] == width and shape[1] * shape[2] > 1)
    return len(shape) == 3 and shape[2] == width and shape[1] > 1


def _describe_refusal(model: nn.Module) -> str:
    return (
        "CAM needs a model that ends in global average pooling and one linear layer or 1x1 convolution, and this "
        f"{type(unwrap(model)).__name__} does not; use GradCAM or FullyCAM, which need no special head."
    )
