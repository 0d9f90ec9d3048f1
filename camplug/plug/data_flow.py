"""Data-flow graph of one forward pass, from the image to the scores.

Each operation is a node with edges from the operations whose results it read. Tensors are identified by their storage,
so views, detached tensors, `no_grad` blocks and operations without a derivative do not interrupt the graph. Nodes hold
numbers only and keep no tensors alive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_SOFTMAX = ("aten::_softmax", "aten::_safe_softmax", "aten::softmax")
_ATTENTION = ("scaled_dot_product", "_transformer_encoder_layer_fwd", "_native_multi_head_attention")


@dataclass(frozen=True)
class Join:
    """Concatenation of tokens: for every part its length, and whether it depends on the image."""

    parts: tuple[tuple[int, bool], ...]

    @property
    def length(self) -> int:
        """Number of tokens in the result."""
        return sum(size for size, _ in self.parts)


@dataclass(frozen=True)
class Paths:
    """Paths from the image to the scores, per operation.

    Attributes:
        feeds: the scores depend on the result.
        trunk: every path from the image to the scores contains the operation.
        last_read: clock value of the last operation on a path to the scores that reads the result; infinite for the
            scores themselves.
    """

    feeds: list[bool]
    trunk: list[bool]
    last_read: list[float]


class Flow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that records the operations of a forward pass on `image` as a graph."""

    def __init__(self, image: Tensor | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.clock = 0
        self.joins: list[Join] = []
        self.attention: list[int] = []
        """Clock values of all softmaxes over tokens and fused attentions."""
        self._sources: list[frozenset[int]] = [frozenset()]  # node 0 is the image
        self._depends = [True]
        self._clocks = [0]
        self._homes: dict[int, tuple[StorageWeakRef, int]] = {}
        if image is not None:
            self._assign(image, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.clock += 1
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        sources = frozenset(n for n in map(self.find_node, given) if n is not None)
        if sources:
            self._note(func, args, given, sources, [t for t in tree_leaves(out) if isinstance(t, Tensor)])
        return out

    def _note(self, func: Any, args: Any, given: list[Tensor], sources: frozenset[int], out: list[Tensor]) -> None:
        schema = getattr(func, "_schema", None)
        name = schema.name if schema is not None else ""
        if schema is not None and schema.is_mutable:
            written = [
                a for a, s in zip(args, schema.arguments, strict=False) if s.alias_info and s.alias_info.is_write
            ]
            out = [*out, *(t for t in tree_leaves(written) if isinstance(t, Tensor))]
        else:  # views are no new nodes
            own = {_get_key(t) for t in given}
            out = [t for t in out if _get_key(t) not in own]
        if not out:
            return
        self._sources.append(sources)
        self._depends.append(any(self._depends[n] for n in sources))
        self._clocks.append(self.clock)
        for tensor in out:
            self._assign(tensor, len(self._sources) - 1)
        if not self._depends[-1]:
            return
        if name == "aten::cat" and out[0].ndim == 3:
            dim = (args[1] if len(args) > 1 else 0) % 3
            self.joins.append(Join(tuple((t.shape[dim], self.depends_on_image(self.find_node(t))) for t in args[0])))
        softmax = name in _SOFTMAX and out[0].ndim >= 3 and out[0].shape[-1] > 1
        if softmax or any(part in name for part in _ATTENTION):
            self.attention.append(self.clock)

    def _assign(self, tensor: Tensor, node: int) -> None:
        key = _get_key(tensor)
        if key is not None:
            self._homes[key] = (StorageWeakRef(tensor.untyped_storage()), node)  # type: ignore[no-untyped-call]

    def find_node(self, tensor: Tensor) -> int | None:
        """Return the operation that last wrote a tensor; None for tensors from before the run, except the image."""
        home = self._homes.get(_get_key(tensor) or 0)
        return None if home is None or home[0].expired() else home[1]  # type: ignore[no-untyped-call]

    def depends_on_image(self, node: int | None) -> bool:
        """Return whether the result of an operation depends on the image."""
        return node is not None and self._depends[node]

    def find_paths(self, scores: Iterable[Tensor]) -> Paths:
        """Return the paths from the image to the scores."""
        ends = {n for n in map(self.find_node, scores) if n is not None}
        count = len(self._sources)
        here, onward = [0] * count, [0] * count  # number of paths from the image, and to the scores
        here[0] = 1
        for n in range(1, count):
            here[n] = sum(here[source] for source in self._sources[n])
        last_read = [math.inf if n in ends else 0.0 for n in range(count)]
        for n in reversed(range(count)):
            onward[n] += n in ends
            for source in self._sources[n]:
                onward[source] += onward[n]
                if onward[n]:
                    last_read[source] = max(last_read[source], self._clocks[n])
        whole = onward[0]
        trunk = [whole > 0 and h * w == whole for h, w in zip(here, onward, strict=True)]
        return Paths([w > 0 for w in onward], trunk, last_read)


def _get_key(tensor: Tensor) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # sparse tensors have no storage
        return None


def find_images(inputs: Any, where: int | None = None) -> Tensor | None:
    """Return the images among the inputs of a call.

    Args:
        inputs: (args, kwargs).
        where: index of the images among the leaves; default: the first floating-point tensor with four or more
            dimensions, else the first floating-point tensor.
    """
    leaves = tree_leaves(inputs)
    if where is not None and where < len(leaves) and isinstance(leaves[where], Tensor):
        return cast("Tensor", leaves[where])
    tensors = [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]
    return next((t for t in tensors if t.ndim >= 4), tensors[0] if tensors else None)


def count_images(inputs: Any, where: int | None = None) -> int | None:
    """Return the number of images among the inputs of a call, see `find_images`; None if unknown."""
    image = find_images(inputs, where)
    return None if image is None or image.ndim < 4 else image.shape[0]


def list_floats(output: Any) -> list[Tensor]:
    """List the floating-point tensors in a model's output."""
    leaves = tree_leaves(vars(output) if hasattr(output, "__dict__") and not isinstance(output, Tensor) else output)
    return [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]


__all__ = ["Flow", "Join", "Paths", "count_images", "find_images", "list_floats"]
