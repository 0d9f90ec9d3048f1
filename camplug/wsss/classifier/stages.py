"""The layers of a network that end a stage: the last map of a stride."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from camplug.errors import InputError, LayerError
from camplug.plug import get_patch_size, named_layers, select, to_grid, trace_model
from camplug.wsss.classifier.body import Body, example


class Stage(NamedTuple):
    """A layer of a body, and which of its calls in a pass puts out the map (0 is the first)."""

    layer: str
    call: int = 0


def stage_layers(body: Body, stages: Sequence[str], what: str = "stage") -> list[Stage]:
    """The layers of a body that put out wanted maps.

    Args:
        body: is run once on a black image.
        stages: each a stride in pixels of the network as it was built, for the last map of that stride ("8": half an
            octave off will do, where a side does not divide), or the name of a layer. Maps inside of a block that
            starts at this stride and ends at a coarser one are not meant: of a ResNet, 8 is its layer2.
        what: they are called in messages.

    Returns:
        One for each stage.

    Raises:
        InputError: no map of that stride, no such layer, or one that puts out no map before the cut.
    """
    passed = _Pass(body, what)
    return [passed.of_stride(stage) if stage.isdecimal() else passed.named(stage) for stage in stages]


class _Pass:
    """What a body's layers put out for one image, in the order in which they end."""

    def __init__(self, body: Body, what: str) -> None:
        self.body, self.what, self.layers = body, what, named_layers(body)
        x = example(body.model)
        side, patch = (x.shape[-2], x.shape[-1]), get_patch_size(body.model)
        self.side = side[1]
        self.calls: list[tuple[Stage, tuple[int, int], bool]] = []  # height and width, whether features
        count: Counter[str] = Counter()
        for call in trace_model(body, self.layers, (x,)).calls:
            count[call.name] += 1
            try:
                h, w = to_grid(torch.empty(call.shape, device="meta"), side, patch, call.name).shape[-2:]
            except LayerError:  # no map
                continue
            if h * w > 1:
                self.calls.append((Stage(call.name, count[call.name] - 1), (h, w), call.features))
        self.ends = {stage.layer: size for stage, size, _ in self.calls}
        self.starts: dict[str, tuple[int, int]] = {}  # of a layer with layers in it: the size of the map before it
        before = None
        for stage, size, _ in self.calls:
            for parent in _parents(stage.layer):
                if before is not None and parent not in self.starts:
                    self.starts[parent] = before
            before = size

    def of_stride(self, stride: str) -> Stage:
        def octaves(size: tuple[int, int]) -> float:
            return abs(math.log2(self.side / size[1] / int(stride)))

        sizes = {size for _, size, features in self.calls if features}
        near = min(sizes, key=octaves) if sizes and int(stride) else None
        if near is None or octaves(near) > 0.5:
            there = ", ".join(f"{s:g}" for s in sorted({round(self.side / w, 1) for _, w in sizes}))
            raise InputError(
                f"{self.what} {stride!r}: the network has no map of that stride (it has {there}); give one of them, or "
                "the name of a layer."
            )
        found = [stage for stage, size, features in self.calls if size == near and features]
        outside = [stage for stage in found if not any(self._leaves(p, near) for p in _parents(stage.layer))]
        return (outside or found)[-1]

    def named(self, stage: str) -> Stage:
        model = self.body.model
        try:
            (module, *others) = select(model, named_layers(model), stage).values()
        except LayerError as error:
            raise InputError(f"{self.what} {stage!r}: {error}") from None
        if others:
            raise InputError(f"{self.what} {stage!r} is {1 + len(others)} layers; give the name of one.")
        found = [found for found, *_ in self.calls if self.layers[found.layer] is module]
        if not found:
            raise InputError(
                f"{self.what} {stage!r}: the layer puts out no map on the way to the last one; name another."
            )
        return found[-1]

    def _leaves(self, parent: str, size: tuple[int, int]) -> bool:
        """Whether a layer is a block that starts with maps of a size and ends with others; a mere sequence is none."""
        block = type(self.layers[parent]) is not nn.Sequential and parent in self.ends
        return block and self.starts.get(parent) == size != self.ends[parent]


def _parents(name: str) -> list[str]:
    """The layers that hold a layer, the outermost first."""
    return [name[:i] for i, letter in enumerate(name) if letter == "."]
