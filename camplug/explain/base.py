"""What every explainer is: something that turns images and classes into maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError, LayerError, ModelError, TargetError
from camplug.explain.fuse import Fusion, LayerNorm, Normalize, normalize_map, sum_resized
from camplug.plug import Classes, Layer, Selector, Tape, Targets, logits_of, patch_size, resolve, to_grid, unwrap

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
        labels: class names by index, for `explain`; default: the model's own, see `camplug.explain.names`.
        transform: preprocessing for `explain`; default: the model's own, see `camplug.explain.preprocess`.
    """

    name: ClassVar[str] = ""

    def __init__(
        self,
        model: nn.Module,
        *,
        normalize: Normalize = "max",
        labels: Sequence[str] | None = None,
        transform: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(f"camplug explains a torch.nn.Module; got {type(model).__name__}.")
        if normalize not in ("max", "minmax", None):
            raise InputError(f'normalize={normalize!r}; allowed are "max", "minmax" and None.')
        self.model = model
        self.normalize = normalize
        self.labels = labels
        self.transform = transform

    @abstractmethod
    def run(self, x: Tensor, classes: Classes, size: tuple[int, int] | None = None) -> Result:
        """Maps of a batch; `maps` and `explain` are two views of it."""

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
        reshape: Callable[[Tensor], Tensor] | None = None,
        labels: Sequence[str] | None = None,
        transform: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(model, normalize=normalize, labels=labels, transform=transform)
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
            targets = resolve(classes, output, x.shape[0])
            rounds = self.fusions(tape, output, targets, x)
            logits = class_logits(output, targets)
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
        """A layer's output laid out as [N,K,h,w]."""
        if self.reshape is not None:
            return self.reshape(tensor)
        patch = patch_size(unwrap(self.model)) if tensor.ndim == 3 else None
        return to_grid(tensor, (x.shape[2], x.shape[3]), patch, str(layer))


# ---- the steps around a method, shared by all of them


def ran(tape: Tape) -> list[tuple[Layer, Tensor]]:
    """The captured calls.

    Raises:
        LayerError: none of the wanted layers ran.
    """
    if not tape.captures:
        raise LayerError("none of the wanted layers ran in the forward pass; name layers that the model calls.")
    return tape.captures


def checked_batch(model: nn.Module, x: Tensor) -> Tensor:
    """The batch as the model can take it: checked, detached, in the model's number format.

    Raises:
        InputError: not a floating-point tensor [N,C,H,W] with at least one image, or on another device.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"maps() takes a tensor [N,3,H,W]; got {type(x).__name__}. explain() takes photographs.")
    if x.ndim != 4 or 0 in x.shape:
        raise InputError(
            f"maps() takes a batch [N,3,H,W] of at least one image; got {list(x.shape)}"
            + (", use x[None] for one image." if x.ndim == 3 else ".")
        )
    if not x.is_floating_point():
        raise InputError(f"maps() takes normalised floating-point images; got {x.dtype}. explain() takes raw pixels.")
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is not None and weight.device != x.device:
        raise InputError(f"the images are on {x.device} and the model is on {weight.device}; move one of them.")
    x = x.detach()
    if weight is not None and weight.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        x = x.to(weight.dtype)
    if x.device.type == "cpu" and _worth_channels_last(model, x):
        x = x.contiguous(memory_format=torch.channels_last)
    return x


def _worth_channels_last(model: nn.Module, x: Tensor) -> bool:
    """Whether a convolution network runs faster on CPU with this batch in channels_last.

    It does (up to a quarter) once the batch outweighs laying the convolutions' weights anew in every pass; the factor
    is where seven architectures with 1 to 8 images broke even.
    """
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    return 300 * x.shape[0] * x.shape[2] * x.shape[3] >= weights


def checked_size(x: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
    """The wanted map size, by default that of the input.

    Raises:
        InputError: not two positive numbers.
    """
    if size is None:
        return (x.shape[2], x.shape[3])
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"size={size!r}; give (height, width), both at least 1.")
    return (int(size[0]), int(size[1]))


@torch.no_grad()
def rows(
    rounds: list[Fusion], targets: Targets, x: Tensor, size: tuple[int, int], normalize: Normalize
) -> list[Tensor]:
    """The maps at their final size and scale, one tensor [K_i,h,w] per image, from one fusion [N,h,w] per round.

    Raises:
        TargetError: a value is NaN or infinite.
    """
    picked = [(i, r) for i, classes in enumerate(targets.classes) for r in range(1 if targets.score else len(classes))]
    if not picked:
        return [torch.zeros((0, *size), device=x.device) for _ in targets.classes]
    images, chosen = (list(index) for index in zip(*picked, strict=True))
    shapes = {shape: one for fusion in rounds for shape, one in fusion.sums.items()}
    sums = [
        torch.stack([fusion.sums.get(shape, torch.zeros_like(one)) for fusion in rounds])[chosen, images]
        for shape, one in shapes.items()
    ]
    if not all(bool(torch.isfinite(m).all()) for m in sums):
        raise TargetError(
            "the map holds NaN or infinite values, though the score is finite: some layer overflowed; run the model in "
            "a wider number format (float32 or bfloat16)."
        )
    maps = normalize_map(sum_resized(sums, size), normalize)
    return list(torch.split(maps, [images.count(i) for i in range(x.shape[0])]))


def class_logits(output: Any, targets: Targets) -> Tensor | None:
    """The detached logits [N,C], or None where a callable reads an output that has none."""
    if targets.score is None:
        return logits_of(output).detach()
    try:
        return logits_of(output).detach()
    except ModelError:
        return None
