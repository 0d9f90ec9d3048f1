"""What one run of a model shows about its layers: the order of the calls and the shapes that come out.

Which map is "the last one before the head" cannot be read off the order of registration: torchvision's GoogLeNet
registers its auxiliary heads last, timm's MobileNetV3 has a convolution behind the pooling. So it is watched.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from camplug.plug.guard import Guard, force_eager, is_compiled
from camplug.plug.listen import Listener, listening
from camplug.plug.outputs import find_logits
from camplug.plug.remember import Remembered
from camplug.plug.settings import as_built

_NO_FEATURES = ("pool", "dropout", "identity", "flatten", "permute", "dropblock")


@dataclass(frozen=True)
class Call:
    """One call of one module: its name and type, the shape of its output, and whether that counts as features."""

    name: str
    kind: str
    shape: tuple[int, ...]
    features: bool


@dataclass(frozen=True)
class Outline:
    """The calls of one forward pass in the order in which they ended, and the number of classes that came out."""

    calls: tuple[Call, ...]
    classes: int | None

    def maps(self) -> list[Call]:
        """Calls that put out a feature map [N,C,h,w]; no pooling, no dropout, no class map of a 1x1 conv head."""
        found = [c for c in self.calls if len(c.shape) == 4 and c.features]
        wide = [c for c in found if c.shape[2] * c.shape[3] > 1] or found
        while len(wide) > 1 and wide[-1].shape[1] == self.classes and any(c.shape[1] != self.classes for c in wide):
            wide.pop()
        return wide

    def last(self) -> list[str]:
        """The last feature map; of containers that return the same tensor the outermost."""
        return [c.name for c in self.maps()[-1:]]

    def stages(self) -> list[str]:
        """The last feature map of every resolution."""
        return self.last_per_size([c.name for c in self.maps()])

    def last_per_size(self, names: Iterable[str]) -> list[str]:
        """Of the named layers, the last one of every size of map (or number of tokens)."""
        wanted = set(names)
        by_size: dict[tuple[int, ...], str] = {}
        for call in self.calls:
            if call.name in wanted and call.features:
                by_size[call.shape[2:] if len(call.shape) == 4 else call.shape[1:]] = call.name
        return list(by_size.values())


class Recorder:
    """Receives module calls and notes their names and shapes; keeps no tensor."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self.root = layers[""]
        self.names = {id(module): name for name, module in layers.items()}
        self.calls: list[Call] = []
        self.classes: int | None = None

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Nothing to note."""
        return None

    def after(self, module: nn.Module, output: Any) -> Any:
        """Note the call."""
        if module is self.root:
            logits = find_logits(output)
            self.classes = logits.shape[1] if logits is not None and logits.ndim >= 2 else None
            return
        name = self.names.get(id(module))
        if name is None or not isinstance(output, torch.Tensor):
            return
        kind = type(module).__name__
        self.calls.append(Call(name, kind, tuple(output.shape), not any(w in kind.lower() for w in _NO_FEATURES)))


_outlines: Remembered[Outline] = Remembered()


def watch(model: nn.Module, layers: dict[str, nn.Module], args: tuple[Any, ...]) -> Outline:
    """Run `model(*args)` once without gradients (a batch: its first image) and note what its layers put out.

    The outline is kept per image size for as long as the model lives and consists of the same modules, so only the
    first call costs a forward pass.
    """
    first = args[0] if args else None
    shape = tuple(first.shape[1:]) if isinstance(first, torch.Tensor) else ()
    if len(args) == 1 and isinstance(first, torch.Tensor) and first.ndim == 4:
        args = (first[:1],)

    def run() -> Outline:
        recorder = Recorder(layers)
        observe(model, layers, args, recorder)
        return Outline(tuple(recorder.calls), recorder.classes)

    return _outlines.get(model, layers, shape, run)


def observe(
    model: nn.Module,
    layers: dict[str, nn.Module],
    args: tuple[Any, ...],
    listener: Listener,
    *,
    as_they_are: bool = False,
) -> None:
    """Run `model(*args)` without gradients, in evaluation mode and as built, while `listener` is told of every call.

    Args:
        model: an unwrapped model.
        layers: its `named_layers`.
        args: what to call it with.
        listener: the only one that hears of this run.
        as_they_are: leave settings on that hold at the moment (see `camplug.dense`).
    """
    guard = Guard(list(layers.values()))
    guard.take()
    try:
        with (
            torch.no_grad(),
            listening(listener, alone=True),
            force_eager() if is_compiled(model) else nullcontext(),
            nullcontext() if as_they_are else as_built(layers.values()),
        ):
            model(*args)
    finally:
        guard.give_back()
