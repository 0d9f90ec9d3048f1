"""Layer outputs captured in a forward pass, and the backward pass that streams their gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from camplug.errors import LayerError
from camplug.plug.attention import AttentionInputs
from camplug.plug.tensors import Probe, find_first_tensor, snapshot


class Layer(NamedTuple):
    """Call of a layer.

    Attributes:
        name: name of the layer in the model.
        module: the layer.
        call: number of the call of this layer, from 0.
        part: "output", or "attention" for the attention probabilities computed in the layer.
    """

    name: str
    module: nn.Module
    call: int
    part: Literal["output", "attention"] = "output"

    def __str__(self) -> str:
        name = self.name if self.part == "output" else f"{self.name} (attention)"
        return name if self.call == 0 else f"{name} (call {self.call + 1})"


Callback = Callable[[Layer, Tensor, Tensor], None]


class AttentionCall(NamedTuple):
    """Attention of one call of a layer.

    Attributes:
        layer: call of the innermost module that computed it.
        probabilities: probabilities [N,heads,T,S] of T queries over S keys.
        inputs: queries, keys and values.
    """

    layer: Layer
    probabilities: Tensor
    inputs: AttentionInputs

    @property
    def weighted(self) -> Tensor:
        r"""Value-weighted attention :math:`A_{ij} \lVert v_j \rVert`, [N,heads,T,S] (Kobayashi et al., 2020)."""
        lengths: Tensor = torch.linalg.vector_norm(self.inputs.value, dim=-1)
        return self.probabilities * lengths[..., None, :]


class Capture:
    """Output of one call of one layer, or the attention computed in it."""

    __slots__ = ("activation", "edge", "handle", "inputs", "layer")

    def __init__(self, layer: Layer, activation: Tensor, inputs: AttentionInputs | None = None) -> None:
        self.layer = layer
        self.activation: Tensor | None = activation
        self.inputs = inputs
        self.edge: Any = None  # graph edge at which backward stops; None if the anchor does
        self.handle: Any = None

    def drop(self) -> None:
        """Release the activation, and remove its hook."""
        if self.handle is not None:
            self.handle.remove()
        self.activation = self.edge = self.inputs = None


class Captures:
    """Captured calls of one forward pass, in the order in which they ended.

    Args:
        grad: keep activations attached to the model's graph.
        forward_only: capture activations without a graph.
    """

    def __init__(self, *, grad: bool, forward_only: bool) -> None:
        self.items: list[Capture] = []
        self._grad = grad
        self._forward_only = forward_only
        self._counts: Counter[tuple[str, str]] = Counter()  # calls of each layer
        self._anchor: Tensor | None = None
        self._rooted = True  # all captured tensors depend on the anchor
        self._visit: Callback | None = None
        self._release = False

    def clear(self) -> None:
        """Drop all captures."""
        self.keep(lambda activation: False)
        self._anchor = None
        self._rooted = True

    def list_attention(self) -> list[AttentionCall]:
        """List the captured attention, in the order in which it was computed."""
        return [
            AttentionCall(c.layer, c.activation, c.inputs)
            for c in self.items
            if c.activation is not None and c.inputs is not None
        ]

    def keep(self, condition: Callable[[Tensor], bool]) -> None:
        """Drop the captures whose activation does not meet a condition."""
        kept = []
        for capture in self.items:
            if capture.activation is not None and condition(capture.activation):
                kept.append(capture)
            else:
                capture.drop()
        self.items = kept
        self._counts = Counter((c.layer.name, c.layer.part) for c in kept)

    def add(self, name: str, module: nn.Module, output: Any, attention: AttentionInputs | None = None) -> Any:
        """Capture the output of a call; return the output to use instead, or None.

        Args:
            name: name of the layer.
            module: the layer.
            output: output of the layer, or the attention probabilities computed in it.
            attention: tensors that the probabilities were computed from; None for an output.

        Raises:
            LayerError: the output holds no floating-point tensor.
        """
        out, put_back = find_first_tensor(output)
        if out is None:
            raise LayerError(
                f"the layer {name!r} puts out {type(output).__name__} without a floating-point tensor; choose another."
            )
        replaced = None
        if not (self._grad or self._forward_only):
            if not torch.is_grad_enabled():
                # a torch.no_grad() block of the model; its end restores the mode
                torch.set_grad_enabled(True)
            if not out.requires_grad:
                if self._anchor is None:
                    self._anchor = torch.zeros((), requires_grad=True)
                out = Probe.apply(self._anchor, out)
                replaced = put_back(out)
            elif self._anchor is None:
                self._rooted = False
        if is_in_backward():  # recomputed by activation checkpointing: already recorded
            return replaced
        part: Literal["output", "attention"] = "output" if attention is None else "attention"
        layer = Layer(name, module, self._counts[name, part], part)
        capture = Capture(layer, snapshot(out if self._grad else out.detach()), attention)
        self._counts[name, part] += 1
        if out.requires_grad:
            capture.handle = self._hook_gradient(capture, out)
            if self._grad or not self._rooted:
                capture.edge = torch.autograd.graph.get_gradient_edge(out)
        self.items.append(capture)
        return replaced

    def _hook_gradient(self, capture: Capture, out: Tensor) -> Any:
        def hook(gradient: Tensor | None) -> None:
            visit, activation = self._visit, capture.activation
            if visit is None or activation is None or gradient is None:  # None: not differentiable
                return
            if self._release:
                capture.activation = None
            visit(capture.layer, activation, gradient)

        # set before in-place operations, so it receives the gradient of the original value
        return out.register_hook(hook)  # type: ignore[no-untyped-call]

    def run_backward(self, score: Tensor, callback: Callback, *, retain_graph: bool) -> tuple[int, Exception | None]:
        """Run the backward pass, calling `callback(layer, activation, gradient)` for every capture, last to first.

        Returns:
            The number of callbacks, and the exception of one, which ends them. It is returned, since on some devices
            an exception in backward aborts the process.
        """
        count = 0
        failure: Exception | None = None

        def visit(layer: Layer, activation: Tensor, gradient: Tensor) -> None:
            nonlocal count, failure
            count += 1
            try:
                callback(layer, activation, gradient)
            except Exception as error:
                self._visit = None
                failure = error

        anchor = [] if self._anchor is None else [self._anchor]
        inputs = anchor + [c.edge for c in self.items if c.edge is not None]
        self._visit, self._release = visit, not retain_graph
        try:
            with (
                torch.autograd.set_multithreading_enabled(False),  # hooks and recomputation stay in this thread
                torch.autocast(score.device.type, enabled=False),
            ):
                torch.autograd.grad(score.sum(), inputs, allow_unused=True, retain_graph=retain_graph)
        finally:
            self._visit = None
        return count, failure


def is_in_backward() -> bool:
    """Return whether this thread runs a backward pass."""
    return bool(torch._C._current_graph_task_id() != -1)


def make_idle_error(names: str) -> LayerError:
    """Return the error for layers that did not run."""
    return LayerError(
        f"none of the wanted layers ({names}) ran in the forward pass; name layers that the model calls as modules "
        "(the inside of a traced or scripted module has none)."
    )


def make_overwritten_error(names: str) -> LayerError:
    """Return the error for a model that overwrites a value which the gradient at these layers needs."""
    return LayerError(
        "the model overwrites a value that the gradient needs (an in-place operation after another), so there is none "
        f"at {names}; write one of the two without its underscore, take later layers with layers=, or a method that "
        "needs no gradient."
    )


def make_unfed_error(names: str) -> LayerError:
    """Return the error for layers that have no gradient of the score."""
    return LayerError(
        f"no wanted layer ({names}) feeds the score with a gradient: the score does not depend on it, it ran inside a "
        "reentrant activation checkpoint (use_reentrant=True), or an operation without a gradient stands between (a "
        "quantised layer, detach(), a custom Function); name others with layers=, or take a method that needs no "
        "gradient."
    )
