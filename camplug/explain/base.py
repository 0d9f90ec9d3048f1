"""What every explainer is: something that turns images and classes into maps."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError, LayerError, ModelError
from camplug.explain.batch import call_model, check_batch, check_size, choose_calls, find_class_logits, finish_maps
from camplug.explain.fuse import Fusion, LayerWeighting, Normalize
from camplug.explain.inputs import Batch, Inputs
from camplug.plug import (
    Classes,
    Evidence,
    Layer,
    Selector,
    Tape,
    Targets,
    patch_size,
    resolve_classes,
    to_grid,
    unwrap,
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
        class_names: class names by index, for `explain`; default: the model's own, see `camplug.explain.names`.
        preprocess: preprocessing for `explain`; default: the model's own, see `camplug.explain.preprocess`.
    """

    name: str = ""
    knows_classes: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        *,
        normalize: Normalize = "max",
        evidence: Evidence = "positive",
        class_names: Sequence[str] | None = None,
        preprocess: Callable[[Any], Tensor] | None = None,
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
        self.class_names = class_names
        self.preprocess = preprocess

    @abstractmethod
    def run(
        self, x: Tensor, classes: Classes, size: tuple[int, int] | None = None, inputs: Inputs | None = None
    ) -> Result:
        """Return the maps of a batch; `maps` and `explain` are two views of it.

        A method whose `run` has no parameter `inputs` explains models of images alone.
        """

    def run_batch(self, batch: Batch, classes: Classes, size: tuple[int, int] | None = None) -> Result:
        """Call `run` on a batch.

        Raises:
            InputError: the model has other inputs, and `run` does not take them.
        """
        if batch.inputs is None:
            return self.run(batch.x, classes, size)
        if "inputs" not in inspect.signature(self.run).parameters:
            raise InputError(f"{self.name or type(self).__name__} explains models of images alone; leave out inputs=.")
        return self.run(batch.x, classes, size, inputs=batch.inputs)

    def unnormalized(self) -> Self:
        """A copy of this explainer whose maps keep their own scale, so that those of several runs can be compared."""
        other = copy.copy(self)
        other.normalize = None
        return other

    def maps(
        self, x: Tensor, classes: Classes = None, size: tuple[int, int] | None = None, *, inputs: Any = None
    ) -> Tensor | list[Tensor]:
        """Class activation maps of a batch.

        Args:
            x: images [N,3,H,W], normalised as the model wants them, on the model's device.
            classes: an int (for all images), N ints, N lists of ints, None (the predicted class), or a callable that
                turns the model's output into one score per image.
            size: height and width of the maps; default: the input's.
            inputs: the model's other inputs, where it takes more than images: a tuple of positional arguments behind
                the images, a dict of keyword arguments, or `camplug.Inputs`.

        Returns:
            [N,h,w] for one class per image, a list of N tensors [K_i,h,w] for lists; on the input's device, detached,
            in float32 (float64 for a float64 model), each map scaled as `normalize` says.

        Raises:
            InputError: x is not a batch of images; inputs of another number of images.
            TargetError: a class that the model does not have, or NaN in its scores.
            LayerError: no layer to look at.
        """
        images = x.shape[0] if isinstance(x, Tensor) and x.ndim else 0
        result = self.run_batch(
            Batch(x, None if inputs is None else Inputs.of(inputs).for_images(images)), classes, size
        )
        return result.maps if result.targets.per_image else torch.cat(result.maps)

    def explain(
        self, image: Any, classes: Any = None, *, batch_size: int = 8, inputs: Any = None
    ) -> Explanation | list[Explanation]:
        """Explain a photograph (or a list of them) at its own size; see `camplug.explain.photographs.explain`."""
        from camplug.explain.photographs import explain

        return explain(self, image, classes, batch_size=batch_size, inputs=inputs)


class LayerExplainer(Explainer):
    """A method that makes one map per layer out of its activation and gradient, and adds the layers' maps.

    Args:
        model: any module; it is never changed.
        layers: where to look; default: what the method's paper uses.
        layer_weighting: how layers are weighed when there are several: None (plain sum), "max", "mean";
            see `camplug.explain.fuse.Fusion`.
        normalize: "max", "minmax" or None.
        evidence: "positive" or "negative".
        reshape: lays a layer's output on a grid [N,C,h,w]; default: `camplug.plug.to_grid`.
        call: which call of a layer that runs several times (an encoder of two images, say), counted from 0 or, if
            negative, from the last one; default: the maps of all calls are added.
        class_names: class names by index.
        preprocess: preprocessing for `explain`.
    """

    default_layers: ClassVar[str] = "last"
    default_layer_weighting: ClassVar[LayerWeighting] = "max"
    needs_gradient: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        layers: Selector | None = None,
        *,
        layer_weighting: LayerWeighting | str = "default",
        normalize: Normalize = "max",
        evidence: Evidence = "positive",
        reshape: Callable[[Tensor], Tensor] | None = None,
        call: int | None = None,
        class_names: Sequence[str] | None = None,
        preprocess: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(model, normalize=normalize, evidence=evidence, class_names=class_names, preprocess=preprocess)
        if layer_weighting not in ("default", "max", "mean", None):
            raise InputError(f'layer_weighting={layer_weighting!r}; allowed are "max", "mean" and None.')
        self.layers: Selector = self.default_layers if layers is None else layers
        self.layer_weighting: LayerWeighting = (
            self.default_layer_weighting if layer_weighting == "default" else layer_weighting
        )
        if call is not None and (isinstance(call, bool) or not isinstance(call, int)):
            raise InputError(f"call={call!r}; give a whole number (0 is a layer's first call), or None for all calls.")
        self.reshape = reshape
        self.call = call
        self.tape()  # a layer that does not exist is told now, not at the first image

    def tape(self, image: int | None = None) -> Tape:
        """Return a tape over this explainer's layers; `image` is that of `Tape`."""
        return Tape(self.model, self.layers, forward_only=not self.needs_gradient, image=image)

    @abstractmethod
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The layer's map [N,h,w] from its activation and gradient [N,K,h,w]."""

    @override
    def run(
        self, x: Tensor, classes: Classes, size: tuple[int, int] | None = None, inputs: Inputs | None = None
    ) -> Result:
        batch = check_batch(self.model, x, inputs)
        out_size, n = check_size(batch, size), len(batch)
        with self.tape(batch.where) as tape:
            output = call_model(self.model, batch)
            targets = resolve_classes(classes, output, n, self.evidence, either_side=not self.knows_classes)
            targets.check(output)
            rounds = self.fusions(tape, output, targets, batch)
            logits = find_class_logits(output, n)
            del output
        return Result(finish_maps(rounds, targets, batch.x, out_size, self.normalize), targets, logits)

    def fusions(self, tape: Tape, output: Any, targets: Targets, batch: Batch) -> list[Fusion]:
        """Return one fusion of layer maps per round of classes, each from one backward pass.

        Raises:
            LayerError: `call` names a call that did not happen, or feeds no score.
        """
        wanted = {id(activation) for _, activation in choose_calls(tape, self.call)}
        found = []
        for r in range(targets.rounds):
            maps: list[tuple[Tensor, int]] = []

            def add(layer: Layer, a: Tensor, g: Tensor, maps: list[tuple[Tensor, int]] = maps) -> None:
                if id(a) in wanted:
                    maps.append(self.one_map(layer, a, g, batch))

            tape.backward(targets.compute_scores(output, r), add, retain_graph=r + 1 < targets.rounds)
            if not maps:
                raise LayerError(f"call={self.call}: this call of the wanted layers does not feed the score.")
            found.append(self.fuse(maps))
        return found

    def fuse(self, maps: list[tuple[Tensor, int]]) -> Fusion:
        """Add layer maps (each with its number of channels); a single one is not weighed."""
        fusion = Fusion(self.layer_weighting if len(maps) > 1 else None)
        for one, channels in maps:
            fusion.add(one, channels)
        return fusion

    def one_map(self, layer: Layer, activation: Tensor, gradient: Tensor, batch: Batch) -> tuple[Tensor, int]:
        """The map [N,h,w] of one captured call, and its number of channels."""
        a, g = (self.on_grid(t, layer, batch) for t in (activation, gradient))
        return self.layer_map(a, g), a.shape[1]

    def on_grid(self, tensor: Tensor, layer: Layer, batch: Batch) -> Tensor:
        """A layer's output laid out as [N,K,h,w].

        Raises:
            LayerError: it is not one map per image.
        """
        n = len(batch)
        if self.reshape is not None:
            laid = self.reshape(tensor)
            if laid.ndim != 4 or laid.shape[0] != n:
                raise LayerError(
                    f"reshape= gives {list(laid.shape)} for the layer {str(layer)!r} and {n} images; it must give "
                    "[N,C,h,w], one map per image."
                )
            return laid
        model, size = unwrap(self.model), batch.size
        if tensor.ndim != 3:
            return to_grid(tensor, size, None, str(layer), images=n)
        seen = batch.trace(model)
        seen.check_tokens(layer.name)
        return to_grid(tensor, size, patch_size(model), str(layer), images=n, spans=seen.spans)
