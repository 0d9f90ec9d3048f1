"""Temporarily freeze parameters, switch to eval mode and disable compiled code; restore all of it on exit.

Several threads may use one model at once, so flags are reference-counted: the first user sets a flag, the last one
restores it.
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

from camplug.errors import ModelError

_lock = threading.Lock()


class _ClearedFlag:
    """Reference-counted boolean attribute that is False on objects in use."""

    def __init__(self, attribute: str) -> None:
        self.attribute = attribute
        self.held: dict[int, list[Any]] = {}  # id -> [object, users], only for flags that were True

    def clear(self, objects: Iterable[Any]) -> list[int]:
        """Set the flag to False; return the ids of the objects whose flag was True."""
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

    def restore(self, mine: list[int]) -> None:
        """Set the flag to True again where nobody else needs it cleared."""
        for key in mine:
            entry = self.held[key]
            entry[1] -= 1
            if entry[1] == 0:
                setattr(entry[0], self.attribute, True)
                del self.held[key]


_trainable = _ClearedFlag("requires_grad")
_training = _ClearedFlag("training")
_eager_readers = 0
_fused_readers = 0
_fused_before = True
_eager_stance: AbstractContextManager[Any] | None = None


class Freeze:
    """Keep `modules` in eval mode with frozen parameters between `apply` and `restore` (both idempotent).

    Flags are set directly, because some published networks override `Module.eval()` to do nothing. `restore` also
    resets the random generators if they advanced.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modules = modules
        self._parameters: list[int] | None = None
        self._flags: list[int] = []
        self._rng: torch.Tensor | None = None
        self._cuda_rng: list[tuple[torch.device, torch.Tensor]] = []

    def apply(self) -> None:
        """Freeze the parameters, set eval mode, and save the random state."""
        if self._parameters is not None:
            return
        parameters = self._list_parameters()
        with _lock:
            self._parameters = _trainable.clear(parameters)
            self._flags = _training.clear(self._modules)
        self._rng = torch.get_rng_state()
        devices = {p.device for p in parameters if p.device.type == "cuda"}
        self._cuda_rng = [(d, torch.cuda.get_rng_state(d)) for d in devices]

    def is_made_in_inference_mode(self) -> bool:
        """Return whether any parameter was created in inference mode."""
        held = (p for m in self._modules for p in m._parameters.values() if p is not None)
        return any(p.is_leaf and p.is_inference() for p in held)

    def _list_parameters(self) -> list[nn.Parameter]:
        # shared parameters count once
        found = {id(p): p for m in self._modules for p in m._parameters.values() if p is not None and p.is_leaf}
        return list(found.values())

    def restore(self) -> None:
        """Restore the flags and the random state."""
        if self._parameters is None:
            return
        with _lock:
            _trainable.restore(self._parameters)
            _training.restore(self._flags)
        self._parameters, self._flags = None, []
        if self._rng is not None and not torch.equal(self._rng, torch.get_rng_state()):
            torch.set_rng_state(self._rng)
        for device, state in self._cuda_rng:
            if not torch.equal(state, torch.cuda.get_rng_state(device)):
                torch.cuda.set_rng_state(state, device)
        self._rng, self._cuda_rng = None, []


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile`, `DataParallel` and `DistributedDataParallel` wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def check_no_fsdp1(modules: Iterable[nn.Module]) -> None:
    """Check that none of a model's modules is a FullyShardedDataParallel (FSDP1).

    Raises:
        ModelError: one is.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")  # imported wherever such a model exists
    kind = getattr(fsdp, "FullyShardedDataParallel", None)
    if kind is not None and any(isinstance(m, kind) for m in modules):
        raise ModelError(
            "a part of the model is wrapped in FullyShardedDataParallel (FSDP1), whose parameters exist only within "
            "its own passes; shard it with torch.distributed.fsdp.fully_shard (FSDP2), or explain the model as it was "
            "before, with the weights of FSDP.state_dict."
        )


def find_first_weight(model: nn.Module) -> nn.Parameter | None:
    """Return the first floating-point parameter, which gives the model's device and dtype; None without one."""
    return next((p for p in model.parameters() if p.is_floating_point()), None)


def has_compiled(modules: Iterable[nn.Module]) -> bool:
    """Return whether one of a model's modules was passed through `torch.compile` or `Module.compile()`."""
    # children, too: `named_layers` lists the module inside of a wrapper, not the wrapper
    return any(_is_compiled(m) or any(map(_is_compiled, m._modules.values())) for m in modules)


def _is_compiled(module: nn.Module | None) -> bool:
    return module is not None and (
        "_orig_mod" in module._modules or module.__dict__.get("_compiled_call_impl") is not None
    )


class force_eager:
    """Context manager that runs compiled modules eagerly, because compiled code does not call module hooks.

    The switch is process-wide (`torch.compiler.set_stance`), so it is reference-counted over threads; other threads
    that run a compiled model meanwhile get the same values, more slowly.
    """

    def __enter__(self) -> None:
        global _eager_readers, _eager_stance
        with _lock:
            _eager_readers += 1
            if _eager_readers == 1:
                # warns of hooks on the wrapper, which have no effect here
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
    """Context manager that disables the fused kernel of torch's transformer layers, which does not call module hooks.

    The switch is process-wide and reference-counted over threads; the values agree up to rounding.
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
    """Return whether any of the modules may run as one fused kernel without gradients."""
    return any(isinstance(m, (nn.TransformerEncoderLayer, nn.MultiheadAttention)) for m in modules)
