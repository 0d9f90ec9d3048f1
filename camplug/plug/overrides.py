"""Temporary attribute overrides of modules."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_missing = object()


class Overrides:
    """Temporary attribute values of the modules of a model; may include `forward`."""

    def __init__(self, root: nn.Module, changes: dict[nn.Module, dict[str, Any]]) -> None:
        self.modules = [root, *changes]
        self._changes = changes
        self._before: list[tuple[nn.Module, str, Any]] = []

    def apply(self) -> None:
        """Set the attributes."""
        for module, attributes in self._changes.items():
            for name, value in attributes.items():
                self._before.append((module, name, module.__dict__.get(name, _missing)))
                module.__dict__[name] = value

    def revert(self) -> None:
        """Restore the attributes."""
        for module, name, value in reversed(self._before):
            if value is _missing:
                module.__dict__.pop(name, None)
            else:
                module.__dict__[name] = value
        self._before.clear()


_lock = threading.Lock()
_held: list[Overrides] = []
_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()


def lock_overrides(root: nn.Module) -> Any:
    """Return the lock of a model's overrides, which the thread that sets or lifts them holds until it is done."""
    with _lock:
        return _locks.setdefault(root, threading.RLock())


@contextmanager
def override_attributes(overrides: Overrides) -> Iterator[None]:
    """Apply overrides inside the block; `lift_overrides` can suspend them."""
    overrides.apply()
    with _lock:
        _held.append(overrides)
    try:
        yield
    finally:
        with _lock:
            _held.remove(overrides)
        overrides.revert()


@contextmanager
def lift_overrides(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Suspend all overrides of these modules inside the block."""
    members = {id(m) for m in modules}
    with _lock:
        lifted = [s for s in _held if any(id(m) in members for m in s.modules)]
        for overrides in reversed(lifted):
            _held.remove(overrides)
            overrides.revert()
    try:
        yield
    finally:
        with _lock:
            for overrides in lifted:
                overrides.apply()
                _held.append(overrides)
