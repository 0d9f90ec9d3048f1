"""The other inputs of a model that takes more than a batch of images, and how they follow the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from camplug.errors import InputError
from camplug.explain.tensor_ops import widen
from camplug.plug import Trace, named_layers, trace_model
from camplug.plug.tensors import make_index, snapshot


class _Image:
    """The type of `IMAGE`."""

    def __repr__(self) -> str:
        return "IMAGE"


IMAGE = _Image()
"""Stands for the images among a model's inputs, where they are not the first one."""


@dataclass(frozen=True)
class PerImage:
    """An input with one entry per image that does not change with the image's size, parts or mirroring.

    Args:
        value: a tensor [N,...], or a list of N entries.
    """

    value: Any


@dataclass(frozen=True)
class Aligned:
    """An input that shows the same positions as the image (depth, a mask): it is resized, cut and mirrored with it.

    Args:
        value: a tensor [N,...,H,W] with the height and width of the images that go into the model.
    """

    value: Tensor


@dataclass(frozen=True)
class Shared:
    """An input that belongs to no image and goes into every call as it is.

    Args:
        value: anything.
    """

    value: Any


class Inputs:
    """The arguments of a model that takes more than a batch of images.

    Where `IMAGE` is not among them, the images go in as the first positional argument. A tensor whose first dimension
    is the number of images has one entry per image (`PerImage`), everything else is `Shared`; `Aligned`, `PerImage` and
    `Shared` say it otherwise. Nested lists, tuples and dicts are looked into.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.

    Raises:
        InputError: `IMAGE` comes twice.

    >>> inputs = Inputs(torch.tensor([[1], [2]]), pixels=IMAGE).of_images(2)
    >>> inputs.take([1, 1]).arguments(torch.zeros(2, 3, 4, 4))[0]
    (tensor([[2],
            [2]]),)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        leaves, self._spec = tree_flatten((args, kwargs))
        count = sum(leaf is IMAGE for leaf in leaves)
        if count > 1:
            raise InputError(f"inputs= holds IMAGE {count} times; the images go into the model once.")
        if count == 0:
            leaves, self._spec = tree_flatten(((IMAGE, *args), kwargs))
        self._leaves: list[Any] = leaves
        self.n: int | None = None

    @staticmethod
    def of(given: Any) -> Inputs:
        """Return `Inputs` from what a caller gave: that, a tuple or list of positional ones, a dict by name, or one.

        Raises:
            InputError: nothing is given.
        """
        if isinstance(given, Inputs):
            return given
        if isinstance(given, dict):
            return Inputs(**given)
        return Inputs(*given) if isinstance(given, (tuple, list)) else Inputs(given)

    @property
    def where(self) -> int:
        """The number of the images among the leaves of (args, kwargs)."""
        return next(i for i, leaf in enumerate(self._leaves) if leaf is IMAGE)

    def for_images(self, n: int) -> Inputs:
        """Return the inputs of n images, each marked as `PerImage`, `Aligned` or `Shared`.

        Raises:
            InputError: one that is marked as having an entry per image has another number of entries.
        """
        if self.n is not None and self.n != n:
            raise InputError(f"inputs= belong to {self.n} images, and there are {n}.")
        found = self._changed(lambda leaf: _marked(leaf, n))
        found.n = n
        return found

    def arguments(self, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call with images x; the model may overwrite them without harm to the caller's."""
        plain = [x if leaf is IMAGE else _unmarked(leaf) for leaf in self._leaves]
        args, kwargs = tree_unflatten(plain, self._spec)
        return args, kwargs

    def take(self, numbers: Sequence[int]) -> Inputs:
        """Return the inputs of a batch that consists of these images, in this order; one may come several times."""
        found = self._changed(lambda leaf: _taken(leaf, list(numbers)))
        found.n = len(numbers)
        return found

    def aligned(self, change: Callable[[Tensor], Tensor], size: tuple[int, int]) -> Inputs:
        """Return the inputs after a change of positions that images of a size go through: `Aligned` ones follow.

        Raises:
            InputError: one may be meant to follow, or may not.
        """
        for leaf in self._leaves:
            value = leaf.value if isinstance(leaf, _Presumed) else None
            if value is not None and value.ndim >= 3 and tuple(value.shape[-2:]) == size:
                raise InputError(
                    f"images are resized, cut or mirrored here, and an input {list(value.shape)} may belong to "
                    "their positions; give camplug.Aligned(tensor) if it changes with the image, or "
                    "camplug.PerImage(tensor) if it stays as it is."
                )
        return self._changed(lambda leaf: Aligned(change(leaf.value)) if isinstance(leaf, Aligned) else leaf)

    def join(self, other: Inputs) -> Inputs:
        """Return the inputs of these images and, behind them, of others."""
        pairs = zip(self._leaves, other._leaves, strict=True)
        found = self._changed(lambda leaf: leaf)
        found._leaves = [_joined(a, b) for a, b in pairs]
        found.n = (self.n or 0) + (other.n or 0)
        return found

    def check_aligned(self, size: tuple[int, int]) -> None:
        """Make sure that `Aligned` inputs have the images' size.

        Raises:
            InputError: one has not.
        """
        for leaf in self._leaves:
            if isinstance(leaf, Aligned) and tuple(leaf.value.shape[-2:]) != size:
                raise InputError(
                    f"camplug.Aligned has {list(leaf.value.shape)}, and the images that go into the model have "
                    f"{size[0]}x{size[1]} pixels; give it with these two as its last dimensions."
                )

    def _changed(self, change: Callable[[Any], Any]) -> Inputs:
        found = object.__new__(Inputs)
        found._spec, found.n = self._spec, self.n
        found._leaves = [leaf if leaf is IMAGE else change(leaf) for leaf in self._leaves]
        return found


@dataclass(frozen=True)
class _Presumed(PerImage):
    """A tensor that has one entry per image by its shape; the caller did not say so."""


def _marked(leaf: Any, n: int) -> Any:
    if isinstance(leaf, (PerImage, Aligned)):
        value = leaf.value
        fits = value.ndim > 0 if isinstance(value, Tensor) else isinstance(value, (list, tuple))
        if not fits or len(value) != n:
            what = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"camplug.{type(leaf).__name__} needs one entry for each of {n} images; got {what}.")
        return leaf
    if isinstance(leaf, Shared):
        return leaf
    return _Presumed(leaf) if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == n else Shared(leaf)


def _unmarked(leaf: Any) -> Any:
    value = leaf.value if isinstance(leaf, (PerImage, Aligned, Shared)) else leaf
    return tree_map(lambda t: snapshot(t.detach()) if isinstance(t, Tensor) else t, value)


def _taken(leaf: Any, numbers: list[int]) -> Any:
    if not isinstance(leaf, (PerImage, Aligned)):
        return leaf
    value = leaf.value
    if isinstance(value, Tensor):
        return replace(leaf, value=value.index_select(0, make_index(value.device, numbers)))
    return replace(leaf, value=type(value)(value[i] for i in numbers))


def _joined(a: Any, b: Any) -> Any:
    if not isinstance(a, (PerImage, Aligned)):
        return a
    value = torch.cat([a.value, b.value]) if isinstance(a.value, Tensor) else type(a.value)([*a.value, *b.value])
    return replace(a, value=value)


def resize_images(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a batch [N,C,H,W] as PIL's bicubic filter does (without rounding to eight bits)."""
    if tuple(x.shape[2:]) == size:
        return x
    small = F.interpolate(widen(x), size, mode="bicubic", align_corners=False, antialias=True)
    return small.to(x.dtype)


def resize_aligned(value: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an input [N,...,H,W] with its images: as they are, or by the nearest pixel where it holds no floats."""
    flat = value.reshape(-1, 1, *value.shape[-2:])
    if value.is_floating_point():
        flat = resize_images(flat, size)
    else:  # in float64, so that whole numbers stay what they are
        flat = F.interpolate(flat.double(), size, mode="nearest-exact").to(value.dtype)
    return flat.reshape(*value.shape[:-2], *size)


@dataclass(frozen=True)
class Batch:
    """Images [N,C,H,W] and the other inputs that go into the model with them.

    Attributes:
        x: the images.
        inputs: the others; None for a model of images alone.
    """

    x: Tensor
    inputs: Inputs | None = None
    _seen: list[Trace] = field(default_factory=list, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return (self.x.shape[2], self.x.shape[3])

    @property
    def where(self) -> int | None:
        """The number of the images among the leaves of the model's arguments, where it is not plain."""
        return None if self.inputs is None else self.inputs.where

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments of the model's call."""
        return ((self.x,), {}) if self.inputs is None else self.inputs.arguments(self.x)

    def trace(self, model: nn.Module) -> Trace:
        """Return what a run of the unwrapped model on this batch shows about its layers; see `trace_model`."""
        if not self._seen:
            self._seen.append(trace_model(model, named_layers(model), *self.arguments(), where=self.where))
        return self._seen[0]

    def with_images(self, x: Tensor) -> Batch:
        """Return a batch of other images in the place of these, with the same inputs."""
        return replace(self, x=x)

    def take(self, numbers: Sequence[int]) -> Batch:
        """Return the batch of some of the images."""
        x = self.x.index_select(0, make_index(self.x.device, numbers))
        return Batch(x, None if self.inputs is None else self.inputs.take(numbers))

    def resize(self, size: tuple[int, int]) -> Batch:
        """Return the batch at another size of its images."""
        if size == self.size:
            return self
        return self._changed(resize_images(self.x, size), lambda t: resize_aligned(t, size))

    def mirror(self) -> Batch:
        """Return the batch with left and right exchanged."""
        return self._changed(self.x.flip(-1), lambda t: t.flip(-1))

    def cut(self, places: Sequence[tuple[int, tuple[int, int, int, int]]]) -> Batch:
        """Return the batch of parts of images: each an image's number and (top, left, bottom, right)."""

        def parts(t: Tensor, numbers: Sequence[int]) -> Tensor:
            boxes = [box for _, box in places]
            return torch.stack([t[i, ..., y:b, x:r] for i, (y, x, b, r) in zip(numbers, boxes, strict=True)])

        numbers = [i for i, _ in places]
        inputs = None
        if self.inputs is not None:
            inputs = self.inputs.take(numbers).aligned(lambda t: parts(t, range(len(places))), self.size)
        return Batch(parts(self.x, numbers), inputs)

    def join(self, other: Batch) -> Batch:
        """Return one batch of these images and as many others, which are made of these."""
        x = torch.cat([self.x, other.x])
        if self.inputs is None or other.inputs is None:
            return Batch(x)
        return Batch(x, self.inputs.join(other.inputs))

    def _changed(self, x: Tensor, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(x, None if self.inputs is None else self.inputs.aligned(change, self.size))
