"""Run a model once to record the outputs of its layers, without side effects."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from camplug.plug.data_flow import Flow, Join, find_images, list_floats
from camplug.plug.freeze import Freeze, force_eager, force_layer_by_layer, has_compiled, has_fused_layers
from camplug.plug.grid import Pair, Size, Spans, count_spatial_dims, find_token_grid, get_patch_size
from camplug.plug.hooks import Listener, hook_calls
from camplug.plug.model_cache import ModelCache
from camplug.plug.model_state import preserve_state
from camplug.plug.outputs import find_logits
from camplug.plug.overrides import lift_overrides, lock_overrides
from camplug.plug.tensors import detach_input, find_first_tensor, snapshot
from camplug.plug.trace import Call, Trace

_NO_FEATURES = ("pool", "dropout", "identity", "flatten", "permute", "dropblock")


class Recorder:
    """Listener that records module calls and the shapes of their outputs; it keeps no tensors."""

    def __init__(self, layers: dict[str, nn.Module], flow: Flow, count: int | None) -> None:
        self.root = layers[""]
        self.flow = flow
        self.names = {id(module): name for name, module in layers.items()}
        self.weights = {id(module): _describe_weights(module) for module in layers.values()}
        self.calls: list[tuple[Call, int | None]] = []  # with the node of the first input
        self.classes: int | None = None
        self.count = count  # number of images
        self.ends: list[Tensor] = []
        self._open: list[tuple[int, int, int | None]] = []
        self._mixing = 0

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Record the start of a call and the node of its input."""
        if id(module) in self.names:
            given = next((t for t in args if isinstance(t, Tensor)), None)
            self._open.append((id(module), self.flow.clock, None if given is None else self.flow.find_node(given)))
        return None

    def after(self, module: nn.Module, output: Any) -> Any:
        """Record the output of a call."""
        name = self.names.get(id(module))
        if name is None:
            return
        began, read, key = 0, None, -1
        while self._open and key != id(module):  # skip calls whose exception the model caught
            key, began, read = self._open.pop()
        self._mixing += any(p.ndim > 1 for p in module.parameters(recurse=False))
        if module is self.root:
            logits = find_logits(output, self.count)
            if logits is not None:  # 1-D: one score per image, or the squeezed scores of a single image
                self.classes = logits.shape[1] if logits.ndim > 1 else logits.numel() if self.count == 1 else 1
            self.ends = list_floats(output) if logits is None else [logits]
            return
        out, _ = find_first_tensor(output)
        if out is None:
            return
        node, kind = self.flow.find_node(out), type(module).__name__
        call = Call(
            name,
            kind,
            tuple(out.shape),
            features=not any(word in kind.lower() for word in _NO_FEATURES),
            image=self.flow.depends_on_image(node),
            node=node,
            span=(began, self.flow.clock),
            weights=self.weights[id(module)],
            depth=self._mixing,
        )
        self.calls.append((call, read))

    def complete_calls(self) -> tuple[Call, ...]:
        """Return the calls, with the fields that need the whole run (`feeds`, `trunk`, `reads_trunk`)."""
        paths = self.flow.find_paths(self.ends)
        found = []
        for c, read in self.calls:
            # containers may return features beside the pooled ones, and only the latter are read outside
            used = c.node is not None and paths.last_read[c.node] > c.span[1]
            found.append(
                replace(
                    c,
                    feeds=used and c.node is not None and paths.feeds[c.node],
                    trunk=used and c.node is not None and paths.trunk[c.node],
                    reads_trunk=read is not None and paths.trunk[read],
                )
            )
        return tuple(found)


def _describe_weights(module: nn.Module) -> str:
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
    """Run the model once without gradients on copies of the inputs, and return the trace of its layers.

    Traces are cached per size of the inputs and value of the other arguments, until the model is deleted or its modules
    change, so only the first call costs a forward pass. Inputs, buffers, attributes and random state are restored.

    Args:
        model: an unwrapped model.
        layers: its `named_layers`.
        args: positional arguments of the call.
        kwargs: keyword arguments.
        where: index of the images among the leaves of (args, kwargs); see `find_images`.
    """
    kwargs = kwargs or {}
    leaves, spec = tree_flatten((args, kwargs))
    kinds = tuple(tuple(v.shape[1:]) if isinstance(v, Tensor) else _describe_value(v) for v in leaves)

    def find() -> Trace:
        return _trace_model(model, layers, args, kwargs, where)

    return _traces.get(model, layers, (where, kinds, repr(spec)), find, lambda trace: trace.is_final)


def _describe_value(value: Any) -> object:
    """Return what identifies an argument that is no tensor, such as a switch between two branches of the model."""
    return (type(value), value) if isinstance(value, (bool, int, float, str, NoneType)) else type(value)


def _trace_model(
    model: nn.Module, layers: dict[str, nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any], where: int | None
) -> Trace:
    args, kwargs = copy_inputs((args, kwargs))
    image = find_images((args, kwargs), where)
    flow = Flow(image)
    recorder = Recorder(layers, flow, None if image is None or image.ndim == 0 else image.shape[0])
    with flow:
        observe(model, layers, args, recorder, kwargs=kwargs)
    dims = count_spatial_dims(model)
    size = None if image is None or image.ndim < dims + 2 else tuple(image.shape[-dims:])
    patch = get_patch_size(model) if dims == 2 else None
    trace = Trace(
        recorder.complete_calls(),
        recorder.classes,
        None if image is None or image.ndim == 0 else image.shape[0],
        size,
        patch,
        find_spans(flow.joins, size, patch),
        tuple(flow.attention),
    )
    from camplug.plug.token_checks import (  # circular: it runs the model, too
        find_dead_layers,
        find_scattered_layers,
        find_unfolded_layers,
    )

    trace = replace(trace, unfolded=find_unfolded_layers(model, layers, args, kwargs, trace, where=where))
    trace = replace(trace, scattered=find_scattered_layers(model, layers, args, kwargs, trace, where=where))
    found = find_dead_layers(model, layers, args, kwargs, trace)
    return replace(trace, dead=found or frozenset(), is_final=found is not None)


def find_spans(joins: Sequence[Join], size: Size | None, patch: Pair | None) -> Spans:
    """Return the positions of patches in token sequences, {length: (first, count)}, from concatenations.

    >>> find_spans([Join(((1, False), (16, True))), Join(((17, True), (5, False)))], (64, 64), (16, 16))
    {17: (1, 16), 22: (1, 16)}
    """
    spans: Spans = {}
    for join in joins:
        found, first = [], 0
        for length, has_image in join.parts:
            if has_image and length in spans:
                found.append((first + spans[length][0], spans[length][1]))
            elif has_image and size is not None and len(size) == 2 and find_token_grid(length, size, patch) is not None:
                found.append((first, length))
            first += length
        if len(found) == 1 and join.length not in spans:
            spans[join.length] = found[0]
    return spans


def copy_inputs(inputs: Any) -> Any:
    """Return a copy of the inputs of a call, whose tensors may be overwritten."""
    return tree_map_only(Tensor, lambda t: snapshot(detach_input(t)), inputs)


_here = threading.local()


def is_observing() -> bool:
    """Return whether this thread is inside `observe`."""
    return bool(getattr(_here, "runs", 0))


def observe(
    model: nn.Module,
    layers: dict[str, nn.Module],
    args: tuple[Any, ...],
    listener: Listener,
    *,
    kwargs: dict[str, Any] | None = None,
    grad: bool = False,
    keep_overrides: bool = False,
) -> Any:
    """Run the model in evaluation mode and return its output; `listener` receives every module call.

    Args:
        model: an unwrapped model.
        layers: its `named_layers`.
        args: positional arguments, passed without a copy; see `copy_inputs`.
        listener: receiver of the module calls; other listeners of this thread are silent.
        kwargs: keyword arguments.
        grad: record the autograd graph (parameters are frozen).
        keep_overrides: keep the attribute overrides in force, such as those of `camplug.dense`.
    """
    guard = Freeze(list(layers.values()))
    guard.apply()
    _here.runs = getattr(_here, "runs", 0) + 1
    try:
        with (
            lock_overrides(model),
            preserve_state(layers.values()),
            torch.set_grad_enabled(grad),
            hook_calls(listener, alone=True),
            force_eager() if has_compiled(layers.values()) else nullcontext(),
            force_layer_by_layer() if has_fused_layers(layers.values()) else nullcontext(),
            nullcontext() if keep_overrides else lift_overrides(layers.values()),
        ):
            return model(*args, **(kwargs or {}))
    finally:
        _here.runs -= 1
        guard.restore()
