"""Abstract base classes of explainers."""

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
from camplug.explain.describe import Described
from camplug.explain.fuse import Fusion, LayerWeighting, Normalize
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.tensor_ops import widen
from camplug.plug import (
    Classes,
    Evidence,
    Layer,
    MapSize,
    Selector,
    Size,
    Tape,
    Targets,
    get_patch_size,
    resolve_classes,
    to_grid,
    unwrap,
)

if TYPE_CHECKING:
    from camplug.explain.explanation import Explanation


@dataclass
class Result:
    """Result of one batch.

    Attributes:
        maps: maps [K_i,h,w] of each image.
        targets: explained classes or score.
        logits: logits [N,C]; None if the output has none.
    """

    maps: list[Tensor]
    targets: Targets
    logits: Tensor | None


class Explainer(Described, ABC):
    """Base class of methods and wrappers.

    Args:
        model: any module; it is never changed.
        normalize: "max" (maximum 1), "minmax", or None for raw values.
        evidence: "positive" (for the class) or "negative" (against it, the map of -score).
        class_names: class names by index, for `explain`; default: the model's own, see `camplug.models.class_names`.
        preprocess: preprocessing for `explain`; default: the model's own, see `camplug.models.preprocess`.
    """

    name: str = ""
    knows_classes: ClassVar[bool] = True
    needs_many_passes: ClassVar[bool] = False  # forward passes grow with channels, windows or masks
    needs_attention: ClassVar[bool] = False  # explains transformers only
    needs_fit: ClassVar[bool] = False  # needs something made of training images

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
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        """Compute the maps of a batch, for `maps`, `explain` and seeds.

        `size` is the size of all maps or, for photographs of several sizes in a batch of seeds, a list with each
        image's; seeds of a method that does not take a list are made one by one.

        Methods without the parameter `inputs` support only models whose single input is the images.
        """

    def run_batch(self, batch: Batch, classes: Classes, size: MapSize | None = None) -> Result:
        """Call `run` on a batch.

        Raises:
            InputError: the model has other inputs, and `run` does not take them.
        """
        if batch.inputs is None:
            return self.run(batch.x, classes, size)
        if "inputs" not in inspect.signature(self.run).parameters:
            raise InputError(f"{self.name or type(self).__name__} explains models of images alone; leave out inputs=.")
        return self.run(batch.x, classes, size, inputs=batch.inputs)

    def without_normalization(self) -> Self:
        """Return a copy of this explainer with raw maps, which are comparable between runs."""
        other = copy.copy(self)
        other.normalize = None
        return other

    def maps(
        self, x: Tensor, classes: Classes = None, size: Size | None = None, *, inputs: Any = None
    ) -> Tensor | list[Tensor]:
        """Compute class activation maps of a batch.

        Args:
            x: preprocessed images [N,3,H,W] on the model's device; signals [N,C,L] or volumes [N,C,D,H,W] for methods
                that read layers, if these are what the model's convolutions take.
            classes: an int (for all images), N ints, N lists of ints, None (the predicted class), or a callable from
                the model's output to one score per image, see `camplug.targets`.
            size: height and width of the maps; default: the input's.
            inputs: further inputs of the model: arguments after the images (tuple or dict), or `camplug.Inputs`.

        Returns:
            [N,h,w] for one class per image ([N,l] of signals, [N,d,h,w] of volumes), a list of N tensors [K_i,h,w] for
            lists; on the input's device, detached, in float32 (float64 for a float64 model), each map scaled according
            to `normalize`.

        Raises:
            InputError: x is no batch of images, or inputs belong to another number of images.
            TargetError: a class does not exist, or a score is NaN.
            LayerError: no suitable layer exists.
        """
        images = x.shape[0] if isinstance(x, Tensor) and x.ndim else 0
        others = None if inputs is None else Inputs.of(inputs).for_images(images)
        result = self.run_batch(Batch(x, others), classes, size)
        return result.maps if result.targets.per_image else torch.cat(result.maps)

    def explain(
        self, image: Any, classes: Any = None, *, batch_size: int = 8, inputs: Any = None
    ) -> Explanation | list[Explanation]:
        """Explain a photograph (or a list of them) at its own size; see `camplug.explain.photographs.explain`."""
        from camplug.explain.photographs import explain

        return explain(self, image, classes, batch_size=batch_size, inputs=inputs)


class LayerExplainer(Explainer):
    """Base class of methods that compute one map per layer from activation and gradient, and add the layers' maps.

    Args:
        model: any module; it is never changed.
        layers: layer selection; default: that of the method's paper.
        layer_weighting: weighting of several layers: None (plain sum), "max", "mean"; see
            `camplug.explain.fuse.Fusion`.
        normalize: "max", "minmax" or None.
        evidence: "positive" or "negative".
        reshape: function from a layer's output to [N,C,h,w]; default: `camplug.plug.to_grid`.
        call: index of the call of a layer that runs several times, from 0, or from the last one if negative; default:
            the maps of all calls are added.
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
        self.reshape, self.call = reshape, call
        self.tape()  # raise now if a layer does not exist

    def tape(self, image: int | None = None) -> Tape:
        """Return a tape over this explainer's layers; see `Tape` for `image`."""
        return Tape(self.model, self.layers, forward_only=not self.needs_gradient, image=image)

    @abstractmethod
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Compute a layer's map [N,h,w] from its activation and gradient [N,K,h,w]."""

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs, images_only=False)
        sizes, n = check_size(batch, size), len(batch)
        with self.tape(batch.where) as tape:
            output = call_model(self.model, batch)
            targets = resolve_classes(classes, output, n, self.evidence, either_side=not self.knows_classes)
            targets.check(output)
            rounds = self.fuse_rounds(tape, output, targets, batch)
            logits = find_class_logits(output, n)
            del output
        return Result(finish_maps(rounds, targets, batch.x, sizes, self.normalize), targets, logits)

    def fuse_rounds(self, tape: Tape, output: Any, targets: Targets, batch: Batch) -> list[Fusion]:
        """Compute one fusion of layer maps per round of classes, by one backward pass each.

        Raises:
            LayerError: the call given by `call` did not happen, or does not feed the score.
        """
        wanted = {id(activation) for _, activation in choose_calls(tape, self.call)}
        found = []
        for r in range(targets.rounds):
            maps: list[tuple[Tensor, int]] = []

            def add(layer: Layer, a: Tensor, g: Tensor, maps: list[tuple[Tensor, int]] = maps) -> None:
                if id(a) in wanted:
                    maps.append(self.make_layer_map(layer, a, g, batch))

            tape.backward(targets.compute_scores(output, r), add, retain_graph=r + 1 < targets.rounds)
            if not maps:
                raise LayerError(f"call={self.call}: this call of the wanted layers does not feed the score.")
            found.append(self.fuse(maps))
        return found

    def fuse(self, maps: list[tuple[Tensor, int]]) -> Fusion:
        """Add layer maps, given with their numbers of channels; a single map is not weighted."""
        fusion = Fusion(self.layer_weighting if len(maps) > 1 else None)
        for one, channels in maps:
            fusion.add(one, channels)
        return fusion

    def make_layer_map(self, layer: Layer, activation: Tensor, gradient: Tensor, batch: Batch) -> tuple[Tensor, int]:
        """Compute the map of one captured call; also return its number of channels.

        Signals and volumes are laid out as one row of positions, over which all methods sum alike.
        """
        a, g = (self.lay_on_grid(t, layer, batch) for t in (activation, gradient))
        if a.ndim == 4:
            return widen(self.layer_map(a, g)), a.shape[1]
        rows = widen(self.layer_map(a.flatten(2)[:, :, None], g.flatten(2)[:, :, None]))
        return rows.reshape(len(a), *a.shape[2:]), a.shape[1]

    def lay_on_grid(self, tensor: Tensor, layer: Layer, batch: Batch) -> Tensor:
        """Return a layer's output as [N,K,h,w] ([N,K,l] of signals, [N,K,d,h,w] of volumes).

        Raises:
            LayerError: the output is not one map per image.
        """
        n, dims = len(batch), len(batch.spatial_size)
        form = {1: "[N,C,l]", 2: "[N,C,h,w]", 3: "[N,C,d,h,w]"}[dims]
        if self.reshape is not None:
            laid = self.reshape(tensor)
            if laid.ndim != dims + 2 or laid.shape[0] != n:
                raise LayerError(
                    f"reshape= gives {list(laid.shape)} for the layer {str(layer)!r} and {n} images; it must give "
                    f"{form}, one map per image."
                )
            return laid
        if dims != 2:
            if tensor.ndim != dims + 2 or tensor.shape[0] != n:
                raise LayerError(
                    f"the layer {str(layer)!r} puts out {list(tensor.shape)} for {list(batch.x.shape)}, which is no "
                    f"feature map {form}; choose another layer with layers=, or give reshape= to lay it out."
                )
            return tensor
        model, size = unwrap(self.model), batch.size
        if tensor.ndim != 3:
            return to_grid(tensor, size, None, str(layer), images=n)
        trace = batch.trace(model)
        trace.check_tokens(layer.name)
        return to_grid(tensor, size, get_patch_size(model), str(layer), images=n, spans=trace.spans)
