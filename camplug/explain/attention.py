"""Base class of methods that read the attention of transformers."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError, LayerError
from camplug.explain.base import Explainer, Result
from camplug.explain.batch import call_model, check_batch, check_size, find_class_logits, finish_maps
from camplug.explain.fuse import Fusion, Normalize
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.tensor_ops import widen
from camplug.explain.wrapper import is_number
from camplug.plug import (
    AttentionCall,
    Classes,
    Evidence,
    Layer,
    MapSize,
    Tape,
    Targets,
    find_layout,
    resolve_classes,
    unwrap,
)
from camplug.plug.grid import Layout, get_patch_size


class AttentionExplainer(Explainer):
    """Base class of methods that read attention between the tokens of an image.

    Args:
        model: transformer, which is never changed.
        last: number of attention layers to read, counted from the last one; default: all, or that of the paper.
        normalize: "max", "minmax" or None.
        evidence: "positive" or "negative".
        class_names: class names by index.
        preprocess: preprocessing for `explain`.

    Raises:
        LayerError: at call time, the model computes no attention between all tokens of an image.
    """

    needs_attention: ClassVar[bool] = True
    default_last: ClassVar[int | None] = None
    layers: tuple[str, ...] = ()  # layers whose outputs `combine_round` reads, beside the attention

    def __init__(
        self,
        model: nn.Module,
        last: int | None = None,
        *,
        normalize: Normalize = "max",
        evidence: Evidence = "positive",
        class_names: Sequence[str] | None = None,
        preprocess: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(model, normalize=normalize, evidence=evidence, class_names=class_names, preprocess=preprocess)
        if last is not None and not (is_number(last, numbers.Integral) and last >= 1):
            raise InputError(f"last={last!r}; give a whole number of attention layers, at least 1, or None.")
        self.last = self.default_last if last is None else last

    @abstractmethod
    def read_layer(self, call: AttentionCall, gradient: Tensor, read: Tensor, tokens: Layout) -> Tensor:
        """Compute what the method needs of one attention; called for the last layer first.

        Args:
            call: the attention.
            gradient: gradient of the score with respect to its probabilities, [N,heads,T,S]; it is not kept.
            read: queries of the last layer that the score depends on, bool [N,T].
            tokens: arrangement of the keys.
        """

    @abstractmethod
    def combine(self, parts: list[Tensor], read: Tensor, tokens: Layout) -> Tensor:
        """Compute the relevance [N,P] of the patches from the results of `read_layer`, first to last."""

    def combine_round(
        self, parts: list[Tensor], read: Tensor, tokens: Layout, *, tape: Tape, targets: Targets, r: int
    ) -> Tensor:
        """Compute the relevance [N,P] in round r of the targets; the tape holds the outputs of `layers`."""
        return self.combine(parts, read, tokens)

    @property
    def last_read(self) -> int | None:
        """Number of attention layers that `read_layer` is called for; None for all."""
        return self.last

    def check_tokens(self, tape: Tape, output: Any, n: int, tokens: Layout) -> None:
        """Check that the method fits the model's tokens, before the first backward pass."""

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        sizes, n = check_size(batch, size), len(batch)
        with Tape(self.model, self.layers, attention=True, image=batch.where) as tape:
            output = call_model(self.model, batch)
            targets = resolve_classes(classes, output, n, self.evidence, either_side=not self.knows_classes)
            targets.check(output)
            calls, tokens = find_attention(self.model, tape, batch, type(self).__name__)
            self.check_tokens(tape, output, n, tokens)
            fusions = [
                self._fuse_round(tape, calls, tokens, targets, output=output, r=r) for r in range(targets.rounds)
            ]
            logits = find_class_logits(output, n)
            del output, calls
        return Result(finish_maps(fusions, targets, batch.x, sizes, self.normalize), targets, logits)

    def _fuse_round(
        self, tape: Tape, calls: dict[Layer, AttentionCall], tokens: Layout, targets: Targets, *, output: Any, r: int
    ) -> Fusion:
        """Return the fusion of round r of the classes, by one backward pass."""
        parts: dict[Layer, Tensor] = {}
        reading: list[Tensor] = []

        def add(layer: Layer, probabilities: Tensor, gradient: Tensor) -> None:
            call = calls.get(layer)
            if call is None or (self.last_read is not None and len(parts) >= self.last_read):
                return
            if not reading:  # the last attention comes first
                reading.append(find_queries(gradient))
            parts[layer] = self.read_layer(call, widen(gradient), reading[0], tokens)

        tape.backward(targets.compute_scores(output, r), add, retain_graph=bool(self.layers) or r + 1 < targets.rounds)
        if not parts:
            raise LayerError(f"the score of this {self._get_kind()} depends on none of its attentions; take GradCAM.")
        fusion = Fusion(None)
        with torch.autocast(reading[0].device.type, enabled=False):
            ordered = [parts[layer] for layer in calls if layer in parts]
            relevance = self.combine_round(ordered, reading[0], tokens, tape=tape, targets=targets, r=r)
            fusion.add(relevance.view(-1, tokens.h, tokens.w).clamp_min(0), 1)
        return fusion

    def _get_kind(self) -> str:
        return type(unwrap(self.model)).__name__


def find_attention(model: nn.Module, tape: Tape, batch: Batch, name: str) -> tuple[dict[Layer, AttentionCall], Layout]:
    """Return the attention over tokens of the images, first to last, and the arrangement of its first keys.

    Args:
        model: the model, which ran on the tape.
        tape: tape of its attention.
        batch: the images.
        name: name of the method, for errors.

    Raises:
        LayerError: there is none, or it cannot be read.
    """
    inner = unwrap(model)
    kind, trace = type(inner).__name__, batch.trace(inner)
    without_image = {call.name for call in trace.calls if not call.image}
    found = {call.layer: call for call in tape.attention if call.layer.name not in without_image}  # not of texts
    for call in found.values():
        shape = tuple(call.probabilities.shape)
        if len(shape) != 4 or shape[0] != len(batch):
            raise LayerError(
                f"the attention of {call.layer.name!r} has the shape {list(shape)} for {_count(len(batch))}: it is "
                f"computed within parts of an image, and {name} reads attention between all tokens; take GradCAM or "
                "FullyCAM."
            )
    if tape.unread_attention > 0:
        raise LayerError(
            f"this {kind} changes attention probabilities before it uses them (as heads that talk to each other do), "
            f"so {name} cannot read them; take GradCAM or FullyCAM."
        )
    if not found:
        raise LayerError(
            f"{name} reads the attention of transformers, and this {kind} computes none with torch's attention or a "
            "softmax and a matrix product; take GradCAM or FullyCAM."
        )
    return found, _find_tokens(list(found.values()), batch, kind, name)


def _find_tokens(calls: list[AttentionCall], batch: Batch, kind: str, name: str) -> Layout:
    """Return the arrangement of the keys.

    Raises:
        LayerError: it changes between the layers, or holds no patches of the image.
    """
    shapes = [tuple(call.probabilities.shape[2:]) for call in calls]
    count = shapes[0][1]
    if any(shape != (count, count) for shape in shapes[:-1]) or shapes[-1][1] != count:
        raise LayerError(
            f"the attention of this {kind} is not always over the same tokens (queries and keys: "
            f"{', '.join(f'{t}x{s}' for t, s in dict.fromkeys(shapes))}), so {name} cannot follow it; take GradCAM or "
            "FullyCAM."
        )
    model, trace = calls[0].inputs.path[0], batch.trace(calls[0].inputs.path[0])
    tokens = find_layout(
        (len(batch), count, 1), batch.size, get_patch_size(model), images=len(batch), spans=trace.spans
    )
    if tokens is None:
        raise LayerError(
            f"the attention of {calls[0].layer.name!r} is over {count} tokens, which are not the patches of an image "
            f"of {batch.size[0]}x{batch.size[1]}; take GradCAM or FullyCAM."
        )
    return tokens


def find_queries(gradient: Tensor) -> Tensor:
    """Return the queries that the score depends on, bool [N,T], from the gradient [N,heads,T,S] of an attention."""
    return (gradient != 0).any(-1).any(1)


def average_rows(relevance: Tensor, read: Tensor) -> Tensor:
    """Return the mean [N,S] of the rows of [N,T,S] that `read` [N,T] marks; 0 where it marks none."""
    weights = read.to(relevance.dtype)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
    return torch.einsum("nt,nts->ns", weights, relevance)


def _count(images: int) -> str:
    return f"{images} image{'s' if images > 1 else ''}"
