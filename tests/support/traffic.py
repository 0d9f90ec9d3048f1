"""Counts the bytes that operations read and write, and those that an interpreted Triton kernel loads and stores."""

from __future__ import annotations

from contextlib import contextmanager

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Traffic(TorchDispatchMode):
    """Counts bytes of tensors that operations read (their arguments) and write (their results).

    >>> import torch
    >>> with Traffic() as traffic:
    ...     _ = torch.ones(3)[1:] + 1
    >>> traffic.bytes  # 12 written, then 8 read and 8 written
    28
    """

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            touched = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in touched)
        return result


@contextmanager
def counted_kernels():
    """Yield a dict with the bytes that interpreted kernels load and store meanwhile; masked elements do not count."""
    from triton.runtime.interpreter import interpreter_builder as builder

    found = {"loaded": 0, "stored": 0}
    load, store = builder.create_masked_load, builder.create_masked_store

    def counted_load(pointers, mask, *args):
        values = load(pointers, mask, *args)
        found["loaded"] += int(mask.data.sum()) * values.data.itemsize
        return values

    def counted_store(pointers, value, mask, *args):
        found["stored"] += int(mask.data.sum()) * value.data.itemsize
        return store(pointers, value, mask, *args)

    builder.create_masked_load, builder.create_masked_store = counted_load, counted_store
    try:
        yield found
    finally:
        builder.create_masked_load, builder.create_masked_store = load, store
