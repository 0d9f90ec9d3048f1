"""Batches of images with further inputs of the model, which follow changes of the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from camplug.errors import InputError
from camplug.explain.tensor_ops import resize_aligned, resize_images
from camplug.plug import Size, Trace, named_layers, trace_model
from camplug.plug.tensors import make_index, snapshot


class _Image:
    """Type of `IMAGE`."""

    def __repr__(self) -> str:
        return "IMAGE"


IMAGE = _Image()
"""Placeholder of the images among a model's inputs, if they are not the first one."""


@dataclass(frozen=True)
class PerImage:
    """Input with one entry per image, independent of the image's size, crop and mirroring.

    Args:
        value: tensor [N,...], or list of N entries.
    """

    value: Any


@dataclass(frozen=True)
class Aligned:
    """Input at the positions of the image (depth, mask), which is resized, cropped and mirrored with it.

    Args:
        value: tensor [N,...,H,W] with the height and width of the model's input images.
    """

    value: Tensor


@dataclass(frozen=True)
class Shared:
    """Input that is independent of the images and passed to every call unchanged.

    Args:
        value: any value.
    """

    value: Any


class Inputs:
    """Arguments of a model with further inputs besides the images.

    The images are the first positional argument, unless `IMAGE` is given. A tensor with the number of images as first
    dimension is `PerImage`, everything else `Shared`; wrap a value in `Aligned`, `PerImage` or `Shared` to change this.
    Lists, tuples and dicts may be nested.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.

    Raises:
        InputError: `IMAGE` is given twice.

    >>> inputs = Inputs(torch.tensor([[1], [2]]), pixels=IMAGE).for_images(2)
    >>> inputs.take([1, 1]).make_arguments(torch.zeros(2, 3, 4, 4))[0]
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
        """Convert a tuple or list of positional arguments, a dict of keyword arguments, or a single one to `Inputs`.

        Raises:
            InputError: `IMAGE` is given twice.
        """
        if isinstance(given, Inputs):
            return given
        if isinstance(given, Mapping):
            return Inputs(**given)
        return Inputs(*given) if isinstance(given, (tuple, list)) else Inputs(given)

    @property
    def where(self) -> int:
        """Index of the images among the leaves of (args, kwargs)."""
        return next(i for i, leaf in enumerate(self._leaves) if leaf is IMAGE)

    def for_images(self, n: int) -> Inputs:
        """Return the inputs for n images, each as `PerImage`, `Aligned` or `Shared`.

        Raises:
            InputError: an input with one entry per image has another number of entries.
        """
        if self.n is not None and self.n != n:
            raise InputError(f"inputs= belong to {self.n} images, and there are {n}.")
        found = self._map(lambda leaf: _mark(leaf, n))
        found.n = n
        return found

    def make_arguments(self, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call with images x, safe from in-place operations of the model."""
        plain = [x if leaf is IMAGE else _unwrap_value(leaf) for leaf in self._leaves]
        args, kwargs = tree_unflatten(plain, self._spec)
        return args, kwargs

    def take(self, numbers: Sequence[int]) -> Inputs:
        """Return the inputs for a batch of these images, in this order; repetitions are allowed."""
        found = self._map(lambda leaf: _take(leaf, list(numbers)))
        found.n = len(numbers)
        return found

    def align(self, change: Callable[[Tensor], Tensor], size: Size) -> Inputs:
        """Return the inputs with `change` applied to the `Aligned` ones, as to images of this size.

        Raises:
            InputError: an unmarked input has the images' size, so whether it is aligned is unknown.
        """
        for leaf in self._leaves:
            value = leaf.value if isinstance(leaf, _Presumed) else None
            if value is not None and value.ndim >= 3 and tuple(value.shape[-2:]) == size:
                raise InputError(
                    f"images are resized, cut or mirrored here, and an input {list(value.shape)} may belong to "
                    "their positions; give camplug.Aligned(tensor) if it changes with the image, or "
                    "camplug.PerImage(tensor) if it stays as it is."
                )
        return self._map(lambda leaf: Aligned(change(leaf.value)) if isinstance(leaf, Aligned) else leaf)

    def join(self, other: Inputs) -> Inputs:
        """Return the inputs of these images followed by those of others."""
        pairs = zip(self._leaves, other._leaves, strict=True)
        found = self._map(lambda leaf: leaf)
        found._leaves = [_join(a, b) for a, b in pairs]
        found.n = (self.n or 0) + (other.n or 0)
        return found

    def check_aligned(self, size: Size) -> None:
        """Check that `Aligned` inputs have the images' size.

        Raises:
            InputError: the size of one differs.
        """
        for leaf in self._leaves:
            if isinstance(leaf, Aligned) and tuple(leaf.value.shape[-len(size) :]) != size:
                raise InputError(
                    f"camplug.Aligned has {list(leaf.value.shape)}, and the images that go into the model have "
                    f"{'x'.join(map(str, size))} pixels; give it with these as its last dimensions."
                )

    def _map(self, change: Callable[[Any], Any]) -> Inputs:
        found = object.__new__(Inputs)
        found._spec, found.n = self._spec, self.n
        found._leaves = [leaf if leaf is IMAGE else change(leaf) for leaf in self._leaves]
        return found


@dataclass(frozen=True)
class _Presumed(PerImage):
    """Unmarked tensor with one entry per image, judging by its shape."""


def _mark(leaf: Any, n: int) -> Any:
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


def _unwrap_value(leaf: Any) -> Any:
    value = leaf.value if isinstance(leaf, (PerImage, Aligned, Shared)) else leaf
    return tree_map(lambda t: snapshot(t.detach()) if isinstance(t, Tensor) else t, value)


def _take(leaf: Any, numbers: list[int]) -> Any:
    if not isinstance(leaf, (PerImage, Aligned)):
        return leaf
    value = leaf.value
    if isinstance(value, Tensor):
        return replace(leaf, value=value.index_select(0, make_index(value.device, numbers)))
    return replace(leaf, value=type(value)(value[i] for i in numbers))


def _join(a: Any, b: Any) -> Any:
    if not isinstance(a, (PerImage, Aligned)):
        return a
    value = torch.cat([a.value, b.value]) if isinstance(a.value, Tensor) else type(a.value)([*a.value, *b.value])
    return replace(a, value=value)


@dataclass(frozen=True)
class Batch:
    """Images [N,C,H,W] and further inputs of the model.

    Attributes:
        x: images; signals [N,C,L] or volumes [N,C,D,H,W] for methods that read layers.
        inputs: further inputs; None for a model without them.
    """

    x: Tensor
    inputs: Inputs | None = None
    _traces: list[Trace] = field(default_factory=list, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def spatial_size(self) -> Size:
        """Spatial size: height and width of images, length of signals, depth, height and width of volumes."""
        return tuple(self.x.shape[2:])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return (self.x.shape[-2], self.x.shape[-1])

    @property
    def where(self) -> int | None:
        """Index of the images among the leaves of the model's arguments; None without further inputs."""
        return None if self.inputs is None else self.inputs.where

    def make_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments of the model's call."""
        return ((self.x,), {}) if self.inputs is None else self.inputs.make_arguments(self.x)

    def trace(self, model: nn.Module) -> Trace:
        """Return the trace of the unwrapped model on this batch; see `trace_model`."""
        if not self._traces:
            self._traces.append(trace_model(model, named_layers(model), *self.make_arguments(), where=self.where))
        return self._traces[0]

    def with_images(self, x: Tensor) -> Batch:
        """Return a batch of other images with the same further inputs."""
        return replace(self, x=x)

    def take(self, numbers: Sequence[int]) -> Batch:
        """Return the batch of some of the images."""
        x = self.x.index_select(0, make_index(self.x.device, numbers))
        return Batch(x, None if self.inputs is None else self.inputs.take(numbers))

    def resize(self, size: tuple[int, int]) -> Batch:
        """Return the batch with the images resized."""
        if size == self.size:
            return self
        return self._map(resize_images(self.x, size), lambda t: resize_aligned(t, size))

    def mirror(self) -> Batch:
        """Return the batch mirrored horizontally."""
        return self._map(self.x.flip(-1), lambda t: t.flip(-1))

    def cut(self, places: Sequence[tuple[int, tuple[int, int, int, int]]]) -> Batch:
        """Return a batch of crops, each given by the index of an image and (top, left, bottom, right)."""

        def parts(t: Tensor, numbers: Sequence[int]) -> Tensor:
            boxes = [box for _, box in places]
            return torch.stack([t[i, ..., y:b, x:r] for i, (y, x, b, r) in zip(numbers, boxes, strict=True)])

        numbers = [i for i, _ in places]
        inputs = None
        if self.inputs is not None:
            inputs = self.inputs.take(numbers).align(lambda t: parts(t, range(len(places))), self.size)
        return Batch(parts(self.x, numbers), inputs)

    def join(self, other: Batch) -> Batch:
        """Return one batch of these images followed by others."""
        x = torch.cat([self.x, other.x])
        if self.inputs is None or other.inputs is None:
            return Batch(x)
        return Batch(x, self.inputs.join(other.inputs))

    def _map(self, x: Tensor, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(x, None if self.inputs is None else self.inputs.align(change, self.size))
