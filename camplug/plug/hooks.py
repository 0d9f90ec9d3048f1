"""One pair of process-wide module hooks that pass every module call on to the listeners of the calling thread.

Nothing is ever attached to a model: a deep copy carries nothing along, two tapes do not see each other, and scripted
submodules can be listened to like any other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


class Listener(Protocol):
    """What is told of module calls; a result other than None replaces the call's arguments or output."""

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """A module is about to be called with these positional arguments."""

    def after(self, module: nn.Module, output: Any) -> Any:
        """A module has put out `output`."""


class NullListener:
    """A listener that changes nothing; the base of those that hear one side of a call only."""

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Leave the arguments as they are."""
        return None

    def after(self, module: nn.Module, output: Any) -> Any:
        """Leave the output as it is."""
        return None


class _Listeners(threading.local):
    def __init__(self) -> None:
        self.here: list[Listener] = []


_listeners = _Listeners()
_lock = threading.Lock()
_handles: list[Any] = []
_count = 0


def _before(module: nn.Module, args: tuple[Any, ...]) -> Any:
    changed = None
    for listener in tuple(_listeners.here):
        result = listener.before(module, args)
        if result is not None:
            changed = args = result
    return changed


def _after(module: nn.Module, args: Any, output: Any) -> Any:
    changed = None
    for listener in tuple(_listeners.here):
        result = listener.after(module, output)
        if result is not None:
            changed = output = result
    return changed


@contextmanager
def hook_calls(listener: Listener, *, alone: bool = False) -> Iterator[None]:
    """Tell `listener` of every module call that this thread makes in the block; `alone` silences the others."""
    global _count
    with _lock:
        _count += 1
        if _count == 1:
            _handles[:] = [register_module_forward_pre_hook(_before), register_module_forward_hook(_after)]
    before = _listeners.here
    _listeners.here = [listener] if alone else [*before, listener]
    try:
        yield
    finally:
        _listeners.here = before
        with _lock:
            _count -= 1
            if _count == 0:
                for handle in _handles:
                    handle.remove()
                _handles.clear()
