"""Follow the image within one run: which tensors are made of it, and which of them make the score.

Every operation of the run is a node that points at the operations it was made of. Tensors are told apart by their
storage, so views and detached tensors stay what they are made of, and neither `no_grad` within the model nor an
operation without a derivative hides a connection. Nothing is kept alive: a node holds numbers only.
"""

from __future__ import annotations

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
    """One concatenation of tokens: the length of every part, and whether it is made of the image."""

    parts: tuple[tuple[int, bool], ...]

    @property
    def length(self) -> int:
        """The number of tokens that come out."""
        return sum(size for size, _ in self.parts)


class Flow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations of a run; `image` says what the run was given."""

    def __init__(self, image: Tensor | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.clock = 0
        self.joins: list[Join] = []
        self.attention: list[int] = []
        """The clock of every softmax over tokens, and of every fused attention."""
        self._made_of: list[frozenset[int]] = [frozenset()]  # node 0 is the image
        self._of_image = [True]
        self._homes: dict[int, tuple[StorageWeakRef, int]] = {}
        if image is not None:
            self._settle(image, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.clock += 1
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        sources = frozenset(n for n in map(self.node, given) if n is not None)
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
        else:  # a view stays what it is a view of
            own = {_key(t) for t in given}
            out = [t for t in out if _key(t) not in own]
        if not out:
            return
        self._made_of.append(sources)
        self._of_image.append(any(self._of_image[n] for n in sources))
        for tensor in out:
            self._settle(tensor, len(self._made_of) - 1)
        if not self._of_image[-1]:
            return
        if name == "aten::cat" and out[0].ndim == 3:
            dim = (args[1] if len(args) > 1 else 0) % 3
            self.joins.append(Join(tuple((t.shape[dim], self.is_of_image(self.node(t))) for t in args[0])))
        softmax = name in _SOFTMAX and out[0].ndim >= 3 and out[0].shape[-1] > 1
        if softmax or any(part in name for part in _ATTENTION):
            self.attention.append(self.clock)

    def _settle(self, tensor: Tensor, node: int) -> None:
        key = _key(tensor)
        if key is not None:
            self._homes[key] = (StorageWeakRef(tensor.untyped_storage()), node)  # type: ignore[no-untyped-call]

    def node(self, tensor: Tensor) -> int | None:
        """The operation that last wrote a tensor; None for what was there before the run, the image aside."""
        home = self._homes.get(_key(tensor) or 0)
        return None if home is None or home[0].expired() else home[1]  # type: ignore[no-untyped-call]

    def is_of_image(self, node: int | None) -> bool:
        """Whether the image entered an operation."""
        return node is not None and self._of_image[node]

    def roads(self, scores: Iterable[Tensor]) -> tuple[list[bool], list[bool]]:
        """Per node: whether it feeds the scores, and whether every road from the image to them leads through it."""
        ends = {n for n in map(self.node, scores) if n is not None}
        count = len(self._made_of)
        here, onward = [0] * count, [0] * count  # numbers of roads from the image, and to the scores
        here[0] = 1
        for n in range(1, count):
            here[n] = sum(here[source] for source in self._made_of[n])
        for n in reversed(range(count)):
            onward[n] += n in ends
            for source in self._made_of[n]:
                onward[source] += onward[n]
        whole = onward[0]
        return [w > 0 for w in onward], [whole > 0 and h * w == whole for h, w in zip(here, onward, strict=True)]

    def made_of(self, node: int) -> frozenset[int]:
        """The operations whose results an operation read."""
        return self._made_of[node]


def _key(tensor: Tensor) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # sparse and other tensors without a storage
        return None


def find_images(inputs: Any, where: int | None = None) -> Tensor | None:
    """Return the images among the inputs of a call.

    Args:
        inputs: (args, kwargs).
        where: their number among the leaves; default: the first tensor that can be a batch of images (or volumes, or
            frames), else the first one of floating-point numbers.
    """
    leaves = tree_leaves(inputs)
    if where is not None and where < len(leaves) and isinstance(leaves[where], Tensor):
        return cast("Tensor", leaves[where])
    tensors = [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]
    return next((t for t in tensors if t.ndim >= 4), tensors[0] if tensors else None)


def list_floats(output: Any) -> list[Tensor]:
    """Every floating-point tensor in a model's output."""
    leaves = tree_leaves(vars(output) if hasattr(output, "__dict__") and not isinstance(output, Tensor) else output)
    return [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]


__all__ = ["Flow", "Join", "find_images", "list_floats"]
