"""Settings of modules that hold for a while: put on, lifted, and as built again afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_missing = object()


class Overrides:
    """Attributes that some modules of a model take on; `forward` may be among them."""

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
        """Put every attribute back."""
        for module, name, value in reversed(self._before):
            if value is _missing:
                module.__dict__.pop(name, None)
            else:
                module.__dict__[name] = value
        self._before.clear()


_lock = threading.Lock()
_held: list[Overrides] = []


@contextmanager
def override_attributes(settings: Overrides) -> Iterator[None]:
    """The settings hold in the block, and `as_built` knows of them."""
    settings.apply()
    with _lock:
        _held.append(settings)
    try:
        yield
    finally:
        with _lock:
            _held.remove(settings)
        settings.revert()


@contextmanager
def lift_overrides(modules: Iterable[nn.Module]) -> Iterator[None]:
    """The modules are as their author built them in the block, whatever settings hold around it."""
    members = {id(m) for m in modules}
    with _lock:
        lifted = [s for s in _held if any(id(m) in members for m in s.modules)]
        for settings in reversed(lifted):
            _held.remove(settings)
            settings.revert()
    try:
        yield
    finally:
        with _lock:
            for settings in lifted:
                settings.apply()
                _held.append(settings)
