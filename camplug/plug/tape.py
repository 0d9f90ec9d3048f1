"""Record activations of chosen layers in a forward pass, and stream their gradients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from camplug.errors import LayerError, ModelError
from camplug.plug import hooks
from camplug.plug.callback_generator import generate_calls
from camplug.plug.data_flow import find_images
from camplug.plug.freeze import (
    Freeze,
    force_eager,
    force_layer_by_layer,
    has_compiled,
    has_fsdp1,
    has_fused_layers,
    unwrap,
)
from camplug.plug.layers import Selector, named_layers, needs_trace, select
from camplug.plug.tensors import Probe, detach_input, find_first_tensor, snapshot
from camplug.plug.trace import Trace
from camplug.plug.tracer import is_observing, trace_model


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


class Capture:
    """Output of one call of one layer."""

    __slots__ = ("activation", "edge", "handle", "layer")

    def __init__(self, layer: Layer, activation: Tensor, edge: Any) -> None:
        self.layer = layer
        self.activation: Tensor | None = activation
        self.edge = edge  # graph edge at which backward stops; None if the anchor does
        self.handle: Any = None


Callback = Callable[[Layer, Tensor, Tensor], None]


class Tape:
    """Record activations of a model's layers inside a with-block, and compute their gradients.

    >>> import torch, camplug
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    >>> with camplug.Tape(model, layers="convs") as tape:
    ...     logits = model(torch.ones(1, 3, 4, 4))
    ...     for layer, activation, gradient in tape.gradients(logits[:, 1]):
    ...         print(layer, tuple(activation.shape), tuple(gradient.shape))
    0 (1, 4, 2, 2) (1, 4, 2, 2)

    With `grad=False`, parameters are frozen and modules in evaluation mode during the forward pass. The graph starts at
    the earliest chosen layers: nothing before them is stored, and no weight gradient is computed. Flags, buffers,
    `.grad` and random state are restored after the pass. Works inside `torch.no_grad()` and `torch.inference_mode()`;
    compiled models run eagerly.

    With `grad=True`, the model runs unchanged (training mode, trainable parameters), and the activations stay attached
    to the graph, so that losses can be computed from them.

    Activations are safe from in-place operations, by copy-on-write. Every call of a module is captured; calling the
    model again clears the tape. A tape belongs to the thread that opened it; several threads may tape one model.

    Args:
        model: any module; wrappers by `torch.compile`, `DataParallel` and `DistributedDataParallel` are removed.
        layers: "convs", "last", "stages", names, globs, modules, types; see `camplug.plug.select`.
        grad: run the model unchanged and keep its graph (training).
        forward_only: capture activations without a graph; `gradients` is not available then.
        image: index of the images among the leaves of the model's (args, kwargs), in the order of torch's pytrees;
            default: the first tensor that can be a batch of images.

    Raises:
        LayerError: a layer does not exist, did not run, or does not feed the score.
        ModelError: the model has parameters made in inference mode, or is wrapped in FSDP1.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Selector = "convs",
        *,
        grad: bool = False,
        forward_only: bool = False,
        image: int | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(f"camplug plugs into a torch.nn.Module; got {type(model).__name__}.")
        self.root = unwrap(model)
        self._layers = named_layers(self.root)
        if has_fsdp1(self._layers.values()):
            raise ModelError(
                "a part of the model is wrapped in FullyShardedDataParallel (FSDP1), whose parameters exist only "
                "within its own passes; shard it with torch.distributed.fsdp.fully_shard (FSDP2), or explain the "
                "model as it was before, with the weights of FSDP.state_dict."
            )
        self._grad = grad
        self._forward_only = forward_only
        self._selector = layers
        self._image = image
        self._wanted: dict[int, str] = {}
        self._is_unresolved = needs_trace(layers, self._layers)
        if not self._is_unresolved:
            self._choose_layers(None)
        self._members = {id(module) for module in self._layers.values()}
        self._guard = Freeze(list(self._layers.values()))
        self._captures: list[Capture] = []
        self._images: int | None = None  # of the present pass, if known
        self._thread = 0
        self._anchor: Tensor | None = None
        self._rooted = True  # all captured tensors depend on the anchor
        self._visit: Callback | None = None
        self._release = False
        self._stack: ExitStack | None = None

    # ---- opening and closing

    def __enter__(self) -> Tape:
        if self._stack is not None:
            raise ModelError("this tape is open already; open a second camplug.Tape instead.")
        if not self._grad and self._guard.is_made_in_inference_mode():
            raise ModelError(
                "the model's parameters were created inside torch.inference_mode(), which bars gradients for good; "
                "build the model outside of it, or copy it with load_state_dict."
            )
        with ExitStack() as stack:
            if has_compiled(self._layers.values()):
                stack.enter_context(force_eager())
            if has_fused_layers(self._layers.values()):
                stack.enter_context(force_layer_by_layer())
            if not self._grad:
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.set_grad_enabled(not self._forward_only))
                stack.callback(self._guard.restore)
            stack.callback(self._clear)
            if self._is_unresolved:
                hook = self.root.register_forward_pre_hook(self._trace, with_kwargs=True, prepend=True)
                stack.callback(hook.remove)
                self._thread = threading.get_ident()
            stack.enter_context(hooks.hook_calls(self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def _clear(self) -> None:
        for capture in self._captures:
            _drop(capture)
        self._captures = []
        self._anchor = None
        self._rooted = True

    # ---- captured activations

    @property
    def names(self) -> list[str]:
        """Names of the chosen layers; empty before the first forward pass for "last" and "stages"."""
        return list(self._wanted.values())

    @property
    def captures(self) -> list[tuple[Layer, Tensor]]:
        """Captured calls with their activations, in the order in which the calls ended."""
        return [(c.layer, c.activation) for c in self._captures if c.activation is not None]

    def __getitem__(self, name: str) -> Tensor:
        """Return the activation of the last call of the layer with this name."""
        for layer, activation in reversed(self.captures):
            if layer.name == name:
                return activation
        raise LayerError(f"the tape holds no layer {name!r}; it holds {[str(la) for la, _ in self.captures]}.")

    # ---- gradients

    def backward(self, score: Tensor, callback: Callback, *, retain_graph: bool = False) -> None:
        """Call `callback(layer, activation, gradient)` for every captured call that feeds the score, last to first.

        `gradient` is d(sum of score)/d(activation), with the activation's shape; the tape does not keep it. Backward
        stops at the earliest chosen layer. Without `retain_graph`, activations and graph are freed on the way, so this
        works once.

        Raises:
            LayerError: no chosen layer ran or feeds the score; or the tape is closed.
        """
        self._check_open()
        if not self._captures:
            raise LayerError(
                f"none of the wanted layers ({self._list_names()}) ran in the forward pass; name layers that the "
                "model calls as modules (the inside of a traced or scripted module has none)."
            )
        count = 0
        failed: list[Exception] = []

        def visit(layer: Layer, activation: Tensor, gradient: Tensor) -> None:
            nonlocal count
            count += 1
            try:
                callback(layer, activation, gradient)
            except Exception as error:  # raised below: on some devices, an exception in backward aborts the process
                self._visit = None
                failed.append(error)

        if score.requires_grad:
            self._visit, self._release = visit, not retain_graph
            try:
                with (
                    torch.autograd.set_multithreading_enabled(False),  # hooks and recomputation stay in this thread
                    torch.autocast(score.device.type, enabled=False),
                ):
                    torch.autograd.grad(score.sum(), self._list_inputs(), allow_unused=True, retain_graph=retain_graph)
            except RuntimeError as error:
                if "modified by an inplace operation" not in str(error):
                    raise
                raise LayerError(
                    "the model overwrites a value that the gradient needs (an in-place operation after another), so "
                    f"there is none at {self._list_names()}; write one of the two without its underscore, take later "
                    "layers with layers=, or a method that needs no gradient."
                ) from error
            finally:
                self._visit = None
                if not self._grad:
                    self._guard.restore()  # activation checkpointing froze it again
        if failed:
            raise failed[0]
        if count == 0:
            raise LayerError(
                f"no wanted layer ({self._list_names()}) feeds the score with a gradient: the score does not "
                "depend on it, it ran inside a reentrant activation checkpoint (use_reentrant=True), or an operation "
                "without a gradient stands between (a quantised layer, detach(), a custom Function); name others with "
                "layers=, or take a method that needs no gradient."
            )

    def gradients(self, score: Tensor, *, retain_graph: bool = False) -> Iterator[tuple[Layer, Tensor, Tensor]]:
        """Iterate over (layer, activation, gradient), from the last captured call to the first.

        Generator form of `backward`, which runs in a background thread and waits at each layer for the next iteration,
        so only one gradient exists at a time. Leaving the loop early stops the backward pass. Thread-local tools such
        as `FlopCounterMode` do not see it; `backward` runs in the calling thread.
        """
        stream = torch.cuda.current_stream(score.device) if score.is_cuda else None

        def push(visit: Callback) -> None:
            with hooks.hook_calls(self), torch.cuda.stream(stream) if stream else nullcontext():
                self.backward(score, visit, retain_graph=retain_graph)

        return generate_calls(push)

    def _list_inputs(self) -> list[Any]:
        anchor = [] if self._anchor is None else [self._anchor]
        return anchor + [c.edge for c in self._captures if c.edge is not None]

    def _check_open(self) -> None:
        if self._stack is None:
            raise LayerError("the tape is closed; ask for gradients inside its with-block.")
        if self._forward_only:
            raise LayerError("this tape was opened with forward_only=True and holds no gradients.")

    # ---- listener interface, see camplug.plug.hooks

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Freeze the model; at the root, also clear the last pass and detach the inputs."""
        if id(module) not in self._members:
            return None
        if module is self.root and not _in_backward():
            self._clear()
            self._images = (
                None if (image := find_images(args, self._image)) is None or image.ndim < 4 else image.shape[0]
            )
        if self._grad:
            return None
        self._guard.apply()
        if module is not self.root:
            return None
        return tree_map_only(Tensor, detach_input, args)  # type: ignore[no-any-return]

    def after(self, module: nn.Module, output: Any) -> Any:
        """Capture a chosen layer; restore the model when its pass is over."""
        result = None
        name = self._wanted.get(id(module))
        if name is not None:
            result = self._capture(name, module, output)
        if module is self.root and not _in_backward():
            if not self._grad:
                self._guard.restore()
            if self._selector == "convs":
                self._drop_single_positions()
        return result

    def _trace(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        """Trace the model before its first pass, to find the layers of the selector.

        `kwargs` is missing if another thread's pass runs while torch adds or removes the hook.
        """
        if self._is_unresolved and not is_observing() and not _in_backward() and threading.get_ident() == self._thread:
            self._is_unresolved = False
            try:
                self._choose_layers(trace_model(self.root, self._layers, args, kwargs, where=self._image))
            except BaseException:
                self._is_unresolved = True
                raise

    def _drop_single_positions(self) -> None:
        """Drop convolutions on a single position, which have no map."""
        wide = [c for c in self._captures if c.activation is not None and self._is_map(c.activation)]
        if wide and len(wide) < len(self._captures):
            for capture in self._captures:
                if capture not in wide:
                    _drop(capture)
            self._captures = wide

    def _is_map(self, activation: Tensor) -> bool:
        if activation.ndim != 4:
            return True
        return activation.shape[2] * activation.shape[3] > 1 and self._images in (None, activation.shape[0])

    def _capture(self, name: str, module: nn.Module, output: Any) -> Any:
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
        if _in_backward():  # recomputed by activation checkpointing: already recorded
            return replaced
        call = sum(c.layer.name == name for c in self._captures)
        capture = Capture(Layer(name, module, call), snapshot(out if self._grad else out.detach()), None)
        if out.requires_grad:
            capture.handle = self._hook_gradient(capture, out)
            if self._grad or not self._rooted:
                capture.edge = torch.autograd.graph.get_gradient_edge(out)
        self._captures.append(capture)
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

    # ---- choosing layers

    def _choose_layers(self, trace: Trace | None) -> None:
        self._wanted = {id(m): name for name, m in select(self.root, self._layers, self._selector, trace).items()}

    def _list_names(self) -> str:
        names = self.names
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _drop(capture: Capture) -> None:
    if capture.handle is not None:
        capture.handle.remove()
    capture.activation = capture.edge = None


def _in_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)


__all__ = ["Capture", "Layer", "Tape", "Callback"]
