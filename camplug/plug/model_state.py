"""Save the state that a forward pass may change in a model, and restore it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from camplug.plug.tensors import snapshot

_OWN = ("_parameters", "_buffers", "_modules", "training")  # handled separately, or by Freeze
_missing = object()


@contextmanager
def preserve_state(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restore buffers, attributes, and the lists, dicts and sets in attributes when the block ends."""
    kept = [_SavedModule(m) for m in modules if not isinstance(m, torch.jit.ScriptModule) and not _is_lazy(m)]
    try:
        yield
    finally:
        for one in kept:
            one.restore()


class _SavedModule:
    """State of one module, without its children."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.buffers = {name: (b, _SavedTensor(b)) for name, b in module._buffers.items() if b is not None}
        self.attributes = {k: v for k, v in vars(module).items() if k not in _OWN}
        self.tensors = [(v, _SavedTensor(v)) for v in self.attributes.values() if isinstance(v, Tensor)]
        self.collections = [(v, v.copy()) for k, v in self.attributes.items() if type(v) in (list, dict, set)]

    def restore(self) -> None:
        now = vars(self.module)
        for key in [k for k in now if k not in _OWN and k not in self.attributes]:
            del now[key]
        for key, value in self.attributes.items():
            if now.get(key, _missing) is not value:
                now[key] = value
        for held, before in self.collections:
            if len(held) != len(before) or any(
                a is not b for a, b in zip(_list_items(held), _list_items(before), strict=True)
            ):
                held.clear()
                held.extend(before) if isinstance(held, list) else held.update(before)
        for name, (buffer, value) in self.buffers.items():
            if self.module._buffers.get(name) is not buffer:
                self.module._buffers[name] = buffer
            value.restore(buffer)
        for tensor, value in self.tensors:
            value.restore(tensor)


class _SavedTensor:
    """Copy of a tensor, restored if it was changed in place."""

    def __init__(self, tensor: Tensor) -> None:
        self.version = None if tensor.is_inference() else tensor._version
        self.saved = snapshot(tensor.detach())

    @torch.no_grad()
    def restore(self, tensor: Tensor) -> None:
        if self.version is None or tensor._version != self.version:
            tensor.copy_(self.saved)


def _list_items(collection: Any) -> list[Any]:
    return [x for pair in collection.items() for x in pair] if isinstance(collection, dict) else list(collection)


def _is_lazy(module: nn.Module) -> bool:
    held = (*module._parameters.values(), *module._buffers.values())
    return any(is_lazy(p) for p in held if p is not None)
