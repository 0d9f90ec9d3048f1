"""CAM (Zhou et al., 2016, arXiv 1512.04150): the head's own weights on the map that it pools."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from camplug.errors import LayerError, ModelError, TargetError
from camplug.explain.base import LayerExplainer, Result, checked_batch, checked_size, class_logits, rows
from camplug.explain.fuse import Fusion
from camplug.explain.numbers import weighted_sum, wide
from camplug.explain.registry import register
from camplug.plug import Classes, Layer, Outline, Tape, logits_of, named_layers, resolve, unwrap, watch


def cam(features: Tensor, weights: Tensor) -> Tensor:
    r"""CAM (eq. 2), its positive part.

    .. math:: L = \mathrm{relu}\Big(\sum_k w_k A_k\Big)

    Args:
        features: A, the map that global average pooling reads, [N,K,h,w].
        weights: w, the head's weights of the wanted class of each image, [N,K].

    Returns:
        [N,h,w], not negative, not normalised.
    """
    return weighted_sum(wide(features), wide(weights)).clamp_min_(0)


@register("cam")
class CAM(LayerExplainer):
    """CAM for a model that ends in global average pooling and one linear layer, or in a 1x1 convolution head.

    The head is the last linear layer or 1x1 convolution that puts out one value per class. For a linear head the map
    it pools is found and checked: the mean of the map times the weights must give the model's own logits, so a head
    that is something else is refused. One forward pass, no backward pass, whatever the number of classes.

    Raises:
        ModelError: the model has no such head (then use GradCAM, which equals CAM where both exist).
    """

    needs_gradient: ClassVar[bool] = False

    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        raise NotImplementedError("CAM needs the head's weights, not gradients")

    def run(self, x: Tensor, classes: Classes, size: tuple[int, int] | None = None) -> Result:
        x = checked_batch(self.model, x)
        out_size = checked_size(x, size)
        if callable(classes) and not isinstance(classes, Tensor):
            raise TargetError("CAM explains classes of the head, not a callable; use GradCAM for other scores.")
        model = unwrap(self.model)
        layers = named_layers(model)
        head, features = self._find(watch(model, layers, (x,)), layers)
        weight = layers[head].weight.detach()
        with torch.inference_mode(False), torch.no_grad():
            with Tape(model, [head, *features], forward_only=True) as tape:
                output = model(x)
                targets = resolve(classes, output, x.shape[0])
                logits = class_logits(output, targets)
                with torch.autocast(x.device.type, enabled=False):
                    class_maps = self._class_maps(tape, layers[head], head, features, output, x)
            fusions = []
            for r in range(targets.rounds):
                targets.scores(output, r)
                images, chosen = targets.of_round(r)
                fusion = Fusion(None)
                if class_maps[0] == "features":
                    w = weight.flatten(1).new_zeros(x.shape[0], weight.shape[1])
                    w[images] = weight.flatten(1)[chosen]
                    fusion.add(cam(class_maps[1], w), weight.shape[1])
                else:
                    one = class_maps[1].new_zeros(x.shape[0], *class_maps[1].shape[2:])
                    one[images] = class_maps[1][images, chosen]
                    fusion.add(one.clamp_min_(0), 1)
                fusions.append(fusion)
        return Result(rows(fusions, targets, x, out_size, self.normalize), targets, logits)

    def _find(self, seen: Outline, layers: dict[str, nn.Module]) -> tuple[str, list[str]]:
        """The head, and the layer whose map it pools (none where the head itself puts out the class maps)."""
        for i in reversed(range(len(seen.calls))):
            call = seen.calls[i]
            module = layers[call.name]
            if not _is_head(module, seen.classes):
                continue
            if len(call.shape) == 4 and call.shape[2] * call.shape[3] > 1:
                return call.name, []
            if self.layers != "last":
                with_names = Tape(self.model, self.layers, forward_only=True).names
                return call.name, with_names
            width = module.weight.shape[1]
            before = [c for c in seen.calls[:i] if c.features and width in (c.shape[1], c.shape[-1]) and _spatial(c.shape)]
            if before:
                return call.name, [before[-1].name]
            break
        raise ModelError(_no_cam(type(unwrap(self.model)).__name__))

    def _class_maps(
        self, tape: Tape, head: nn.Module, head_name: str, features: list[str], output: Any, x: Tensor
    ) -> tuple[str, Tensor]:
        weight, bias = wide(head.weight.detach()).flatten(1), head.bias  # type: ignore[operator, union-attr]
        offset = weight.new_zeros(len(weight)) if bias is None else wide(bias.detach())  # type: ignore[union-attr, arg-type, operator]
        if not features:
            return "classes", wide(tape[head_name]) - offset[:, None, None]
        if len(features) > 1:
            raise LayerError(f"CAM reads the one map that the head pools; layers= names {len(features)} layers.")
        layer = next(layer for layer, _ in reversed(tape.captures) if layer.name == features[0])
        a = wide(self.on_grid(tape[features[0]], Layer(layer.name, layer.module, 0), x))
        logits = wide(logits_of(output))
        if a.shape[1] != weight.shape[1]:
            raise LayerError(
                f"the layer {features[0]!r} has {a.shape[1]} channels and the head reads {weight.shape[1]}; CAM needs the "
                "map that the head pools."
            )
        if self.layers != "last":
            return "features", a
        tolerance = 0.05 if output_is_narrow(output) else 1e-3
        for candidate in (a, a.clamp_min(0)):  # DenseNet applies its last ReLU outside of any module
            made = candidate.mean((2, 3)) @ weight.T + offset
            if (made - logits).abs().max() <= tolerance * logits.abs().max().clamp_min(1e-12):
                return "features", candidate
        raise ModelError(_no_cam(type(unwrap(self.model)).__name__))


def output_is_narrow(output: Any) -> bool:
    """Whether the logits came in a 16-bit format."""
    return logits_of(output).dtype in (torch.float16, torch.bfloat16)


def _is_head(module: nn.Module, classes: int | None) -> bool:
    if isinstance(module, nn.Linear):
        return module.out_features == classes
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.groups == 1
        and module.out_channels == classes
    )


def _spatial(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 or (len(shape) == 4 and sorted(shape[1:])[0] * sorted(shape[1:])[1] > 1)


def _no_cam(kind: str) -> str:
    return (
        f"CAM needs a model that ends in global average pooling and one linear layer or 1x1 convolution, and this {kind} "
        "does not; use GradCAM or FullyCAM, which need no special head."
    )
