"""Counts what is computed, operation by operation: to a GPU each is a kernel, and its host takes time to start it."""

from __future__ import annotations

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Counts operations by name; views compute nothing and do not count.

    >>> import torch
    >>> with Operations() as operations:
    ...     _ = torch.ones(3)[1:] + 1
    >>> dict(operations.counts)
    {'ones': 1, 'add': 1}
    """

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    @property
    def total(self):
        return sum(self.counts.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.counts[func._schema.name.split("::")[1]] += 1
        return func(*args, **(kwargs or {}))
