"""What every explainer is: something that turns images and classes into maps."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError, LayerError, ModelError
from camplug.explain.batch import checked_batch, checked_size, class_logits, rows
from camplug.explain.fuse import Fusion, LayerNorm, Normalize
from camplug.plug import (
    Classes,
    Evidence,
    Layer,
    Selector,
    Tape,
    Targets,
    layout,
    named_layers,
    patch_size,
    resolve,
    to_grid,
    unwrap,
    watch,
)

if TYPE_CHECKING:
    from camplug.explain.explanation import Explanation


@dataclass
class Result:
    """What one batch gave: per image the maps [K_i,h,w], and what they explain; the logits [N,C] if there were any."""

    maps: list[Tensor]
    targets: Targets
    logits: Tensor | None


class Explainer(ABC):
    """Base of all methods and of everything that wraps a method.

    Args:
        model: any module; it is never changed.
        normalize: "max" (maximum 1), "minmax", or None for raw values.
        evidence: "positive" shows what speaks for a class, "negative" what speaks against it (the map of -score).
        labels: class names by index, for `explain`; default: the model's own, see `camplug.explain.names`.
        transform: preprocessing for `explain`; default: the model's own, see `camplug.explain.preprocess`.
    """

    name: str = ""
    knows_classes: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        *,
        normalize: Normalize = "max",
        evidence: Evidence = "positive",
        labels: Sequence[str] | None = None,
        transform: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(f"camplug explains a torch.nn.Module; got {type(model).__name__}.")
        if normalize not in ("max", "minmax", None):
            raise InputError(f'normalize={normalize!r}; allowed are "max", "minmax" and None.')
        if evidence not in ("positive", "negative"):
            raise InputError(f'evidence={evidence!r}; allowed are "positive" and "negative".')
        if evidence == "negative" and not self.knows_classes:
            raise InputError(
                f"{self.name} shows the same for every class, so it has no negative evidence; use GradCAM."
            )
        self.model = model
        self.normalize = normalize
        self.evidence: Evidence = evidence
        self.labels = labels
        self.transform = transform

    @abstractmethod
    def run(self, x: Tensor, classes: Classes, size: tuple[int, int] | None = None) -> Result:
        """Maps of a batch; `maps` and `explain` are two views of it."""

    def unnormalized(self) -> Self:
        """A copy of this explainer whose maps keep their own scale, so that those of several runs can be compared."""
        other = copy.copy(self)
        other.normalize = None
        return other

    def maps(self, x: Tensor, classes: Classes = None, size: tuple[int, int] | None = None) -> Tensor | list[Tensor]:
        """Class activation maps of a batch.

        Args:
            x: images [N,3,H,W], normalised as the model wants them, on the model's device.
            classes: an int (for all images), N ints, N lists of ints, None (the predicted class), or a callable that
                turns the model's output into one score per image.
            size: height and width of the maps; default: the input's.

        Returns:
            [N,h,w] for one class per image, a list of N tensors [K_i,h,w] for lists; on the input's device, detached,
            in float32 (float64 for a float64 model), each map scaled as `normalize` says.

        Raises:
            InputError: x is not a batch of images.
            TargetError: a class that the model does not have, or NaN in its scores.
            LayerError: no layer to look at.
        """
        result = self.run(x, classes, size)
        return result.maps if result.targets.per_image else torch.cat(result.maps)

    def explain(self, image: Any, classes: Any = None, *, batch_size: int = 8) -> Explanation | list[Explanation]:
        """Explain a photograph (or a list of them) at its own size; see `camplug.explain.pictures.explain`."""
        from camplug.explain.pictures import explain

        return explain(self, image, classes, batch_size=batch_size)


class LayerExplainer(Explainer):
    """A method that makes one map per layer out of its activation and gradient, and adds the layers' maps.

    Args:
        model: any module; it is never changed.
        layers: where to look; default: what the method's paper uses.
        layer_norm: how layers are weighed when there are several: None (plain sum), "max", "mean";
            see `camplug.explain.fuse.Fusion`.
        normalize: "max", "minmax" or None.
        evidence: "positive" or "negative".
        reshape: lays a layer's output on a grid [N,C,h,w]; default: `camplug.plug.to_grid`.
        labels: class names by index.
        transform: preprocessing for `explain`.
    """

    default_layers: ClassVar[str] = "last"
    default_layer_norm: ClassVar[LayerNorm] = "max"
    needs_gradient: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        layers: Selector | None = None,
        *,
        layer_norm: LayerNorm | str = "default",
        normalize: Normalize = "max",
        evidence: Evidence = "positive",
        reshape: Callable[[Tensor], Tensor] | None = None,
        labels: Sequence[str] | None = None,
        transform: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(model, normalize=normalize, evidence=evidence, labels=labels, transform=transform)
        if layer_norm not in ("default", "max", "mean", None):
            raise InputError(f'layer_norm={layer_norm!r}; allowed are "max", "mean" and None.')
        self.layers: Selector = self.default_layers if layers is None else layers
        self.layer_norm: LayerNorm = self.default_layer_norm if layer_norm == "default" else layer_norm
        self.reshape = reshape
        self.tape()  # a layer that does not exist is told now, not at the first image

    def tape(self) -> Tape:
        """A tape over this explainer's layers."""
        return Tape(self.model, self.layers, forward_only=not self.needs_gradient)

    @abstractmethod
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The layer's map [N,h,w] from its activation and gradient [N,K,h,w]."""

    @override
    def run(self, x: Tensor, classes: Classes, size: tuple[int, int] | None = None) -> Result:
        x = checked_batch(self.model, x)
        out_size = checked_size(x, size)
        with self.tape() as tape:
            output = unwrap(self.model)(x)
            targets = resolve(classes, output, x.shape[0], self.evidence, either_side=not self.knows_classes)
            targets.check(output)
            rounds = self.fusions(tape, output, targets, x)
            logits = class_logits(output, x.shape[0])
            del output
        return Result(rows(rounds, targets, x, out_size, self.normalize), targets, logits)

    def fusions(self, tape: Tape, output: Any, targets: Targets, x: Tensor) -> list[Fusion]:
        """One fusion of layer maps per round of classes, each from one backward pass."""
        fusions = []
        for r in range(targets.rounds):
            score = targets.scores(output, r)
            if self.layer_norm is None:
                fusion = Fusion(None)

                def fold(layer: Layer, a: Tensor, g: Tensor, fusion: Fusion = fusion) -> None:
                    fusion.add(*self.one_map(layer, a, g, x))

                tape.stream(score, fold, retain_graph=r + 1 < targets.rounds)
            else:  # whether a map is weighed depends on whether others join it, so the (small) maps wait
                found: list[tuple[Tensor, int]] = []

                def keep(layer: Layer, a: Tensor, g: Tensor, found: list[tuple[Tensor, int]] = found) -> None:
                    found.append(self.one_map(layer, a, g, x))

                tape.stream(score, keep, retain_graph=r + 1 < targets.rounds)
                fusion = self.fuse(found)
            fusions.append(fusion)
        return fusions

    def fuse(self, maps: list[tuple[Tensor, int]]) -> Fusion:
        """Add layer maps (each with its number of channels); a single one is not weighed."""
        fusion = Fusion(self.layer_norm if len(maps) > 1 else None)
        for one, channels in maps:
            fusion.add(one, channels)
        return fusion

    def one_map(self, layer: Layer, activation: Tensor, gradient: Tensor, x: Tensor) -> tuple[Tensor, int]:
        """The map [N,h,w] of one captured call, and its number of channels."""
        a, g = (self.on_grid(t, layer, x) for t in (activation, gradient))
        return self.layer_map(a, g), a.shape[1]

    def on_grid(self, tensor: Tensor, layer: Layer, x: Tensor) -> Tensor:
        """A layer's output laid out as [N,K,h,w].

        Raises:
            LayerError: it is not one map per image.
        """
        if self.reshape is not None:
            laid = self.reshape(tensor)
            if laid.ndim != 4 or laid.shape[0] != x.shape[0]:
                raise LayerError(
                    f"reshape= gives {list(laid.shape)} for the layer {str(layer)!r} and {x.shape[0]} images; it must "
                    "give [N,C,h,w], one map per image."
                )
            return laid
        model, size = unwrap(self.model), (x.shape[2], x.shape[3])
        if tensor.ndim != 3:
            return to_grid(tensor, size, None, str(layer), images=x.shape[0])
        patch, spans = patch_size(model), {}
        if layout(tensor.shape, size, patch, images=x.shape[0], spans={}) is None:  # not patches alone
            spans = watch(model, named_layers(model), (x,)).spans
        return to_grid(tensor, size, patch, str(layer), images=x.shape[0], spans=spans)
