"""Keep what was found out about a model for as long as it lives and consists of the same modules."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from torch import nn

T = TypeVar("T")


class ModelCache(Generic[T]):
    """A store of facts per model; a model whose modules were exchanged counts as unknown. Safe under threads."""

    def __init__(self) -> None:
        self._facts: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], dict[Hashable, T]]]
        self._facts = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def get(
        self,
        model: nn.Module,
        layers: dict[str, nn.Module],
        key: Hashable,
        find: Callable[[], T],
        keep: Callable[[T], bool] = lambda fact: True,
    ) -> T:
        """Return the fact stored under `key`, found out now if it is not known, and stored where `keep` says so."""
        signature = tuple(map(id, layers.values()))
        with self._lock:
            known = self._facts.get(model)
            if known is None or known[0] != signature:
                known = self._facts[model] = (signature, {})
            if key in known[1]:
                return known[1][key]
        fact = find()  # outside the lock: it may run the model
        if keep(fact):
            with self._lock:
                known[1][key] = fact
        return fact
