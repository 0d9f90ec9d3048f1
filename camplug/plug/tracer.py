"""Run a model once to see what its layers put out, and leave everything as it was."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from camplug.plug.data_flow import Flow, find_images, list_floats
from camplug.plug.freeze import Freeze, force_eager, force_layer_by_layer, has_fused_layers, is_compiled
from camplug.plug.grid import patch_size
from camplug.plug.hooks import Listener, hook_calls
from camplug.plug.model_cache import ModelCache
from camplug.plug.model_state import preserve_state
from camplug.plug.outputs import find_logits
from camplug.plug.overrides import lift_overrides
from camplug.plug.tensors import detach_input, first_tensor, snapshot
from camplug.plug.trace import Call, Trace, find_spans

_NO_FEATURES = ("pool", "dropout", "identity", "flatten", "permute", "dropblock")


class Recorder:
    """Receives module calls and notes what they put out; keeps no tensor of them."""

    def __init__(self, layers: dict[str, nn.Module], flow: Flow, count: int | None) -> None:
        self.root = layers[""]
        self.flow = flow
        self.names = {id(module): name for name, module in layers.items()}
        self.weights = {id(module): _weights(module) for module in layers.values()}
        self.calls: list[tuple[Call, int | None]] = []  # and the node that the call read
        self.classes: int | None = None
        self.count = count  # images of the call
        self.ends: list[Tensor] = []
        self._open: list[tuple[int, int, int | None]] = []
        self._mixing = 0

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Note when the call began, and what it reads."""
        if id(module) in self.names:
            given = next((t for t in args if isinstance(t, Tensor)), None)
            self._open.append((id(module), self.flow.clock, None if given is None else self.flow.node(given)))
        return None

    def after(self, module: nn.Module, output: Any) -> Any:
        """Note the call."""
        name = self.names.get(id(module))
        if name is None:
            return
        began, read, key = 0, None, -1
        while self._open and key != id(module):  # a call that raised, and was caught by the model, has no end
            key, began, read = self._open.pop()
        self._mixing += any(p.ndim > 1 for p in module.parameters(recurse=False))
        if module is self.root:
            logits = find_logits(output, self.count)
            if logits is not None:  # a vector: one score per image, or what squeeze() left of a single image's scores
                self.classes = logits.shape[1] if logits.ndim > 1 else logits.numel() if self.count == 1 else 1
            self.ends = list_floats(output) if logits is None else [logits]
            return
        out, _ = first_tensor(output)
        if out is None:
            return
        node, kind = self.flow.node(out), type(module).__name__
        call = Call(
            name,
            kind,
            tuple(out.shape),
            features=not any(word in kind.lower() for word in _NO_FEATURES),
            image=self.flow.is_of_image(node),
            node=node,
            span=(began, self.flow.clock),
            weights=self.weights[id(module)],
            depth=self._mixing,
        )
        self.calls.append((call, read))

    def finished(self) -> tuple[Call, ...]:
        """The calls, with what only the whole run shows about them."""
        feeds, trunk = self.flow.roads(self.ends)

        def at(marks: list[bool], node: int | None) -> bool:
            return node is not None and marks[node]

        return tuple(
            replace(c, feeds=at(feeds, c.node), trunk=at(trunk, c.node), reads_trunk=at(trunk, read))
            for c, read in self.calls
        )


def _weights(module: nn.Module) -> str:
    sizes = [p.ndim for p in module.parameters()]
    return "mix" if any(n > 1 for n in sizes) else "scale" if sizes else ""


_traces: ModelCache[Trace] = ModelCache()


def trace_model(
    model: nn.Module,
    layers: dict[str, nn.Module],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    where: int | None = None,
) -> Trace:
    """Run the model once without gradients on a copy of the call, and note what its layers put out.

    The trace is kept per size of the inputs for as long as the model lives and consists of the same modules, so only
    the first call costs a forward pass. Inputs, buffers, attributes and random state are as before.

    Args:
        model: an unwrapped model.
        layers: its `named_layers`.
        args: positional arguments of the call.
        kwargs: keyword arguments.
        where: the number of the images among the leaves of (args, kwargs); see `image_of`.
    """
    kwargs = kwargs or {}
    shapes = tuple(tuple(t.shape[1:]) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))

    def find() -> Trace:
        return _trace_model(model, layers, args, kwargs, where)

    return _traces.get(model, layers, (where, shapes), find, lambda found: found.settled)


def _trace_model(
    model: nn.Module, layers: dict[str, nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any], where: int | None
) -> Trace:
    args, kwargs = copy_inputs((args, kwargs))
    image = find_images((args, kwargs), where)
    flow = Flow(image)
    recorder = Recorder(layers, flow, None if image is None or image.ndim == 0 else image.shape[0])
    with flow:
        observe(model, layers, args, recorder, kwargs=kwargs)
    size = None if image is None or image.ndim < 4 else (int(image.shape[-2]), int(image.shape[-1]))
    patch = patch_size(model)
    trace = Trace(
        recorder.finished(),
        recorder.classes,
        None if image is None or image.ndim == 0 else image.shape[0],
        size,
        patch,
        find_spans(flow.joins, size, patch),
        tuple(flow.attention),
    )
    from camplug.plug.token_checks import find_dead_layers, find_scattered_layers  # they run the model, too

    trace = replace(trace, scattered=find_scattered_layers(model, layers, args, kwargs, trace, where=where))
    found = find_dead_layers(model, layers, args, kwargs, trace)
    return replace(trace, dead=found or frozenset(), settled=found is not None)


def copy_inputs(inputs: Any) -> Any:
    """The inputs of a call, whose tensors may be overwritten without harm to the caller's."""
    return tree_map_only(Tensor, lambda t: snapshot(detach_input(t)), inputs)


_here = threading.local()


def is_observing() -> bool:
    """Whether this thread is just running a model to see what its layers put out."""
    return bool(getattr(_here, "runs", 0))


def observe(
    model: nn.Module,
    layers: dict[str, nn.Module],
    args: tuple[Any, ...],
    listener: Listener,
    *,
    kwargs: dict[str, Any] | None = None,
    grad: bool = False,
    as_they_are: bool = False,
) -> Any:
    """Run the model in evaluation mode and as built, while `listener` is told of every call; return its output.

    Args:
        model: an unwrapped model.
        layers: its `named_layers`.
        args: what to call it with; given as they are, see `copied`.
        listener: the only one that hears of this run.
        kwargs: what to call it with by name.
        grad: whether operations are recorded (of what requires a gradient; parameters do not).
        as_they_are: leave settings on that hold at the moment (see `camplug.dense`).
    """
    guard = Freeze(list(layers.values()))
    guard.apply()
    _here.runs = getattr(_here, "runs", 0) + 1
    try:
        with (
            preserve_state(layers.values()),
            torch.set_grad_enabled(grad),
            hook_calls(listener, alone=True),
            force_eager() if is_compiled(model) else nullcontext(),
            force_layer_by_layer() if has_fused_layers(layers.values()) else nullcontext(),
            nullcontext() if as_they_are else lift_overrides(layers.values()),
        ):
            return model(*args, **(kwargs or {}))
    finally:
        _here.runs -= 1
        guard.restore()
