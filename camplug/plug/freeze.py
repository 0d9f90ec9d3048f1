"""Lend a model for reading: parameters frozen, evaluation mode, compiled code off; everything put back afterwards.

Several threads may read one model at once, so each lent flag is counted: the first reader sets it, the last one
puts the original value back.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

_lock = threading.Lock()


class _Lent:
    """A boolean attribute of many objects, held at False while at least one reader needs it so."""

    def __init__(self, attribute: str) -> None:
        self.attribute = attribute
        self.held: dict[int, list[Any]] = {}  # id -> [object, readers]; only objects whose flag was True

    def take(self, objects: Iterable[Any]) -> list[int]:
        mine = []
        for obj in objects:
            entry = self.held.get(id(obj))
            if entry is not None:
                entry[1] += 1
            elif getattr(obj, self.attribute):
                setattr(obj, self.attribute, False)
                self.held[id(obj)] = [obj, 1]
            else:
                continue
            mine.append(id(obj))
        return mine

    def give_back(self, mine: list[int]) -> None:
        for key in mine:
            entry = self.held[key]
            entry[1] -= 1
            if entry[1] == 0:
                setattr(entry[0], self.attribute, True)
                del self.held[key]


_trainable = _Lent("requires_grad")
_training = _Lent("training")
_eager_readers = 0
_fused_readers = 0
_fused_before = True
_eager_stance: AbstractContextManager[Any] | None = None


class Freeze:
    """Holds `modules` in evaluation mode with frozen parameters between `take` and `give_back` (both idempotent).

    The flags are set one by one, never through `Module.eval()`, which some published networks override to do nothing.
    The state of the random generators is put back as well if the forward pass moved it.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modules = modules
        self._parameters: list[int] | None = None
        self._flags: list[int] = []
        self._rng: torch.Tensor | None = None
        self._cuda_rng: list[tuple[torch.device, torch.Tensor]] = []

    def apply(self) -> None:
        """Freeze, set evaluation mode, and note the random state."""
        if self._parameters is not None:
            return
        parameters = self._all_parameters()
        with _lock:
            self._parameters = _trainable.take(parameters)
            self._flags = _training.take(self._modules)
        self._rng = torch.get_rng_state()
        devices = {p.device for p in parameters if p.device.type == "cuda"}
        self._cuda_rng = [(d, torch.cuda.get_rng_state(d)) for d in devices]

    def is_made_in_inference_mode(self) -> bool:
        """Whether any parameter can never take part in a graph."""
        return any(p.is_inference() for p in self._all_parameters())

    def _all_parameters(self) -> list[nn.Parameter]:
        # the same parameter may hang on two modules: counting it once per reader keeps the books simple
        found = {id(p): p for m in self._modules for p in m._parameters.values() if p is not None and p.is_leaf}
        return list(found.values())

    def restore(self) -> None:
        """Put everything back."""
        if self._parameters is None:
            return
        with _lock:
            _trainable.give_back(self._parameters)
            _training.give_back(self._flags)
        self._parameters, self._flags = None, []
        if self._rng is not None and not torch.equal(self._rng, torch.get_rng_state()):
            torch.set_rng_state(self._rng)
        for device, state in self._cuda_rng:
            if not torch.equal(state, torch.cuda.get_rng_state(device)):
                torch.cuda.set_rng_state(state, device)
        self._rng, self._cuda_rng = None, []


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, `DataParallel` and `DistributedDataParallel` wrappers; it owns the layers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_fsdp1(model: nn.Module) -> bool:
    """Whether a part of the model is wrapped in FullyShardedDataParallel, which runs as one module only."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # who has such a model has imported it
    kind = getattr(fsdp, "FullyShardedDataParallel", None)
    return kind is not None and any(isinstance(m, kind) for m in model.modules())


def first_weight(model: nn.Module) -> nn.Parameter | None:
    """The parameter whose device and number format stand for the model's; None if it has no floating-point one."""
    return next((p for p in model.parameters() if p.is_floating_point()), None)


def is_compiled(model: nn.Module) -> bool:
    """Whether the model or any part of it was passed through `torch.compile` or `Module.compile()`."""
    return any("_orig_mod" in m._modules or m.__dict__.get("_compiled_call_impl") is not None for m in model.modules())


class force_eager:
    """Context: compiled modules run their original code, because compiled code passes no layer boundaries.

    The switch belongs to the process (`torch.compiler.set_stance`), so it is counted over threads; a thread that runs
    a compiled model meanwhile gets the same numbers a little slower.
    """

    def __enter__(self) -> None:
        global _eager_readers, _eager_stance
        with _lock:
            _eager_readers += 1
            if _eager_readers == 1:
                # torch's advice on hooks that fire for the wrapper too: nobody listens to the wrapper here
                warnings.filterwarnings(
                    "ignore", message=r"Using `torch.compile\(module\)` when there are global hooks"
                )
                _eager_stance = torch.compiler.set_stance("force_eager")

    def __exit__(self, *exc: object) -> None:
        global _eager_readers, _eager_stance
        with _lock:
            _eager_readers -= 1
            if _eager_readers == 0 and _eager_stance is not None:
                _eager_stance.__exit__(None, None, None)
                _eager_stance = None


class force_layer_by_layer:
    """Context: torch's own transformer layers call their parts, instead of one fused kernel that passes no boundaries.

    This switch, too, belongs to the process and is counted over threads; both ways give the same up to rounding.
    """

    def __enter__(self) -> None:
        global _fused_readers, _fused_before
        with _lock:
            _fused_readers += 1
            if _fused_readers == 1:
                _fused_before = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)

    def __exit__(self, *exc: object) -> None:
        global _fused_readers
        with _lock:
            _fused_readers -= 1
            if _fused_readers == 0:
                torch.backends.mha.set_fastpath_enabled(_fused_before)


def has_fused_layers(modules: Iterable[nn.Module]) -> bool:
    """Whether any of the modules may run as one fused kernel when nothing requires a gradient."""
    return any(isinstance(m, (nn.TransformerEncoderLayer, nn.MultiheadAttention)) for m in modules)
