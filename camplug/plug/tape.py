"""Record activations of chosen layers in a forward pass, and stream their gradients."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from camplug.errors import LayerError, ModelError
from camplug.plug import hooks
from camplug.plug.attention import AttentionInputs, AttentionReader
from camplug.plug.callback_generator import generate_calls
from camplug.plug.captures import (
    AttentionCall,
    Callback,
    Captures,
    Layer,
    is_in_backward,
    make_idle_error,
    make_overwritten_error,
    make_unfed_error,
)
from camplug.plug.data_flow import count_images
from camplug.plug.freeze import (
    Freeze,
    check_no_fsdp1,
    force_eager,
    force_layer_by_layer,
    has_compiled,
    has_fused_layers,
    unwrap,
)
from camplug.plug.grid import count_spatial_dims
from camplug.plug.layers import Selector, named_layers, needs_trace, select
from camplug.plug.tensors import detach_input
from camplug.plug.trace import Trace
from camplug.plug.tracer import is_observing, trace_model


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
    the earliest chosen layers: nothing before them is stored, and no weight gradient is computed. Flags, `.grad`
    and random state are restored after the pass; what the model itself stores during a pass, such as a counter, stays.
    Works inside `torch.no_grad()` and `torch.inference_mode()`; compiled models run eagerly.

    With `grad=True`, the model runs unchanged (training mode, trainable parameters), and the activations stay attached
    to the graph, so that losses can be computed from them.

    Activations are safe from in-place operations. Every call of a module is captured; calling the model again clears
    the tape. A tape belongs to the thread that opened it; several threads may tape one model.

    Args:
        model: any module; wrappers by `torch.compile`, `DataParallel` and `DistributedDataParallel` are removed.
        layers: "convs", "last", "stages", names, globs, modules, types; see `camplug.plug.select`.
        grad: run the model unchanged and keep its graph (training).
        forward_only: capture activations without a graph; `gradients` is not available then.
        image: index of the images among the leaves of the model's (args, kwargs), in the order of torch's pytrees;
            default: the first tensor that can be a batch of images.
        attention: capture attention probabilities; fused attention is computed step by step. `layers` may be empty.

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
        attention: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(f"camplug plugs into a torch.nn.Module; got {type(model).__name__}.")
        self.root = unwrap(model)
        self._layers = named_layers(self.root)
        self._dims = count_spatial_dims(self.root)
        check_no_fsdp1(self._layers.values())
        self._grad = grad
        self._forward_only = forward_only
        self._selector = layers
        self._image = image
        self._wanted: dict[int, str] = {}
        self.chosen_calls: dict[str, frozenset[int]] = {}
        self._is_unresolved = needs_trace(layers, self._layers)
        if not self._is_unresolved and not (attention and isinstance(layers, (list, tuple)) and not layers):
            self._choose_layers(None)
        self._members = {id(module) for module in self._layers.values()}
        self._guard = Freeze(list(self._layers.values()))
        self._captures = Captures(grad=grad, forward_only=forward_only)
        self._images: int | None = None  # of the present pass, if known
        self._reader = AttentionReader(self._layers, lambda: self._images, self._add_attention) if attention else None
        self._thread = 0
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
            stack.callback(self._captures.clear)
            if self._is_unresolved or self._reader:
                hook = self.root.register_forward_pre_hook(self._trace, with_kwargs=True, prepend=True)
                stack.callback(hook.remove)
                self._thread = threading.get_ident()
            stack.enter_context(self._listen())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    # ---- captured activations

    @property
    def names(self) -> list[str]:
        """Names of the chosen layers; empty before the first forward pass for "last" and "stages"."""
        return list(self._wanted.values())

    @property
    def captures(self) -> list[tuple[Layer, Tensor]]:
        """Captured calls with their activations, in the order in which the calls ended."""
        return [(c.layer, c.activation) for c in self._captures.items if c.activation is not None]

    @property
    def attention(self) -> list[AttentionCall]:
        """Captured attention, in the order in which it was computed; empty without `attention=True`."""
        return self._captures.list_attention()

    @property
    def unread_attention(self) -> int:
        """Number of softmaxes over tokens that are not captured, since their probabilities are changed before use."""
        return self._reader.mode.unread if self._reader else 0

    def __getitem__(self, name: str) -> Tensor:
        """Return the activation of the last call of the layer with this name."""
        for layer, activation in reversed(self.captures):
            if layer.name == name and layer.part == "output":
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
        if not self._captures.items:
            raise make_idle_error(self._list_names())
        count, failure = 0, None
        if score.requires_grad:
            try:
                count, failure = self._captures.run_backward(score, callback, retain_graph=retain_graph)
            except RuntimeError as error:
                if "modified by an inplace operation" not in str(error):
                    raise
                raise make_overwritten_error(self._list_names()) from error
            finally:
                if not self._grad:
                    self._guard.restore()  # activation checkpointing froze it again
        if failure is not None:
            raise failure
        if count == 0:
            raise make_unfed_error(self._list_names())

    def gradients(self, score: Tensor, *, retain_graph: bool = False) -> Iterator[tuple[Layer, Tensor, Tensor]]:
        """Iterate over (layer, activation, gradient), from the last captured call to the first.

        Generator form of `backward`, which runs in a background thread and waits at each layer for the next iteration,
        so only one gradient exists at a time. Leaving the loop early stops the backward pass. Thread-local tools such
        as `FlopCounterMode` do not see it; `backward` runs in the calling thread.
        """
        stream = torch.cuda.current_stream(score.device) if score.is_cuda else None

        def push(visit: Callback) -> None:
            with self._listen(), torch.cuda.stream(stream) if stream else nullcontext():
                self.backward(score, visit, retain_graph=retain_graph)

        return generate_calls(push)

    def _check_open(self) -> None:
        if self._stack is None:
            raise LayerError("the tape is closed; ask for gradients inside its with-block.")
        if self._forward_only:
            raise LayerError("this tape was opened with forward_only=True and holds no gradients.")

    # ---- listener interface, see camplug.plug.hooks

    @contextmanager
    def _listen(self) -> Iterator[None]:
        with hooks.hook_calls(self), self._reader.listen() if self._reader else nullcontext():
            yield

    def _add_attention(self, name: str, module: nn.Module, probabilities: Tensor, inputs: AttentionInputs) -> Tensor:
        replaced = self._captures.add(name, module, probabilities, inputs)
        return probabilities if replaced is None else replaced

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Freeze the model; at the root, also clear the last pass and detach the inputs."""
        if id(module) not in self._members:
            return None
        if module is self.root and not is_in_backward():
            self._captures.clear()
            self._images = count_images(args, self._image)
        if self._grad:
            return None
        self._guard.apply()
        if module is not self.root:
            return None
        return tree_map_only(Tensor, detach_input, args)  # type: ignore[no-any-return]

    def after(self, module: nn.Module, output: Any) -> Any:
        """Capture a chosen layer; restore the model when its pass is over."""
        name = self._wanted.get(id(module))
        result = None if name is None else self._captures.add(name, module, output)
        if module is self.root and not is_in_backward():
            if not self._grad:
                self._guard.restore()
            if self._selector == "convs":
                self._drop_single_positions()
        return result

    def _trace(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        """Count the images, also of keyword arguments; trace the model before its first pass, to find the layers.

        `kwargs` is missing if another thread's pass runs while torch adds or removes the hook.
        """
        if is_observing() or is_in_backward() or threading.get_ident() != self._thread:
            return
        self._images = count_images((args, kwargs), self._image)
        if self._is_unresolved:
            self._is_unresolved = False
            try:
                self._choose_layers(trace_model(self.root, self._layers, args, kwargs, where=self._image))
            except BaseException:
                self._is_unresolved = True
                raise

    def _drop_single_positions(self) -> None:
        """Drop convolutions on a single position, which have no map."""

        def is_map(a: Tensor) -> bool:
            return a.ndim != self._dims + 2 or (math.prod(a.shape[2:]) > 1 and self._images in (None, a.shape[0]))

        if any(is_map(activation) for _, activation in self.captures):
            self._captures.keep(is_map)

    def _choose_layers(self, trace: Trace | None) -> None:
        self._wanted = {id(m): name for name, m in select(self.root, self._layers, self._selector, trace).items()}
        self.chosen_calls = {} if trace is None else trace.find_calls(self._selector)

    def _list_names(self) -> str:
        names = self.names or ["attention"]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


__all__ = ["AttentionCall", "Callback", "Layer", "Tape"]
