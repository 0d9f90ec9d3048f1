"""Layer outputs captured in a forward pass, and the backward pass that streams their gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from camplug.errors import LayerError
from camplug.plug.tensors import Probe, find_first_tensor, snapshot


class Layer(NamedTuple):
    """Call of a layer.

    Attributes:
        name: name of the layer in the model.
        module: the layer.
        call: number of the call of this layer, from 0.
    """

    name: str
    module: nn.Module
    call: int

    def __str__(self) -> str:
        return self.name if self.call == 0 else f"{self.name} (call {self.call + 1})"


Callback = Callable[[Layer, Tensor, Tensor], None]


class Capture:
    """Output of one call of one layer."""

    __slots__ = ("activation", "edge", "handle", "layer")

    def __init__(self, layer: Layer, activation: Tensor) -> None:
        self.layer = layer
        self.activation: Tensor | None = activation
        self.edge: Any = None  # graph edge at which backward stops; None if the anchor does
        self.handle: Any = None

    def drop(self) -> None:
        """Release the activation, and remove its hook."""
        if self.handle is not None:
            self.handle.remove()
        self.activation = self.edge = None


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
        self._counts: Counter[str] = Counter()  # calls of each layer
        self._anchor: Tensor | None = None
        self._rooted = True  # all captured tensors depend on the anchor
        self._visit: Callback | None = None
        self._release = False

    def clear(self) -> None:
        """Drop all captures."""
        self.keep(lambda activation: False)
        self._anchor = None
        self._rooted = True

    def keep(self, condition: Callable[[Tensor], bool]) -> None:
        """Drop the captures whose activation does not meet a condition."""
        kept = []
        for capture in self.items:
            if capture.activation is not None and condition(capture.activation):
                kept.append(capture)
            else:
                capture.drop()
        self.items = kept
        self._counts = Counter(c.layer.name for c in kept)

    def add(self, name: str, module: nn.Module, output: Any) -> Any:
        """Capture the output of a call; return the output to use instead, or None.

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
        capture = Capture(Layer(name, module, self._counts[name]), snapshot(out if self._grad else out.detach()))
        self._counts[name] += 1
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
