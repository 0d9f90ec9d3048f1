"""Process-wide module hooks that pass every module call to the listeners of the calling thread.

No hook is registered on a model, so copies carry none, two tapes do not interfere, and scripted submodules work, too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


class Listener(Protocol):
    """Protocol of receivers of module calls; a result other than None replaces the arguments or the output."""

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Handle a module call before it runs; `args` are its positional arguments."""

    def after(self, module: nn.Module, output: Any) -> Any:
        """Handle the output of a module call."""


class NullListener:
    """Listener that does nothing; base class of listeners that override one method."""

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return None: keep the arguments."""
        return None

    def after(self, module: nn.Module, output: Any) -> Any:
        """Return None: keep the output."""
        return None


class _Listeners(threading.local):
    def __init__(self) -> None:
        self.here: list[Listener] = []


_listeners = _Listeners()
_lock = threading.Lock()
_handles: list[Any] = []
_count = 0


def _before(module: nn.Module, args: tuple[Any, ...]) -> Any:
    return _pass_on("before", module, args)


def _after(module: nn.Module, args: Any, output: Any) -> Any:
    return _pass_on("after", module, output)


def _pass_on(side: str, module: nn.Module, value: Any) -> Any:
    """Call a method of all listeners, each with the value as changed by those before; return it, None if unchanged."""
    changed = None
    for listener in tuple(_listeners.here):
        result = getattr(listener, side)(module, value)
        if result is not None:
            changed = value = result
    return changed


@contextmanager
def hook_calls(listener: Listener, *, alone: bool = False) -> Iterator[None]:
    """Pass every module call of this thread to `listener` inside the block; `alone` suspends other listeners."""
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
