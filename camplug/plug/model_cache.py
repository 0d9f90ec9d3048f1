"""Per-model cache, invalidated when submodules are replaced."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from torch import nn

T = TypeVar("T")


LIMIT = 256  # entries of a model; photographs of a data set have about a hundred sizes


class ModelCache(Generic[T]):
    """Thread-safe cache of values per model; entries of a model are dropped when its submodules change.

    Of more than 256 entries of a model the one that was not used for longest is dropped.
    """

    def __init__(self) -> None:
        self._values: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], dict[Hashable, T]]]
        self._values = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def get(
        self,
        model: nn.Module,
        layers: dict[str, nn.Module],
        key: Hashable,
        find: Callable[[], T],
        keep: Callable[[T], bool] = lambda value: True,
    ) -> T:
        """Return the value stored under `key`; else call `find`, and store its result if `keep` accepts it."""
        signature = tuple(map(id, layers.values()))
        with self._lock:
            known = self._values.get(model)
            if known is None or known[0] != signature:
                known = self._values[model] = (signature, {})
            if key in known[1]:
                known[1][key] = known[1].pop(key)  # used last
                return known[1][key]
        value = find()  # outside the lock: it may run the model
        if keep(value):
            with self._lock:
                known[1][key] = value
                while len(known[1]) > LIMIT:
                    del known[1][next(iter(known[1]))]
        return value
