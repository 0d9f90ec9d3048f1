"""The maps that a network puts out on the way to its last one, in the pass that gives the last one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camplug.errors import InputError, LayerError
from camplug.plug import Tape, dense, named_layers, patch_size, select, to_grid, watch
from camplug.wsss.classifier.body import Body, example
from camplug.wsss.classifier.network import Classifier


class Stage(NamedTuple):
    """A layer of a body, and which of its calls in a pass puts out the map (0 is the first)."""

    layer: str
    call: int = 0


def stage_layers(body: Body, stages: Sequence[str]) -> list[Stage]:
    """The layers of a body that put out wanted maps.

    Args:
        body: is run once on a black image.
        stages: each a stride in pixels of the network as it was built, for the last map of that stride ("8": half an
            octave off will do, where a side does not divide), or the name of a layer. Maps inside of a block that
            starts at this stride and ends at a coarser one are not meant: of a ResNet, 8 is its layer2.

    Returns:
        One for each stage.

    Raises:
        InputError: no map of that stride, no such layer, or one that puts out no map before the cut.
    """
    passed = _Pass(body)
    return [passed.of_stride(stage) if stage.isdecimal() else passed.named(stage) for stage in stages]


def stage_maps(network: Classifier, x: Tensor, stages: Sequence[Stage]) -> tuple[Tensor, list[Tensor]]:
    """Feature maps of images before the neck: the last ones, and those of earlier layers.

    Args:
        network: runs once, at its output stride.
        x: normalised images, [N,3,H,W].
        stages: of `stage_layers`.

    Returns:
        The last maps [N,K,h,w], and those of each stage, [N,K_n,h,w]: without a gradient, resized to the last ones'
        grid (bilinear, corners not aligned).
    """
    body, stride = network.body, network.output_stride
    with nullcontext() if stride is None else dense(body, stride):
        if not stages:
            last: Tensor = body(x)
            return last, []
        with Tape(body, list({stage.layer for stage in stages}), grad=True) as tape:
            last = body(x)
            captured = {Stage(layer.name, layer.call): map_.detach() for layer, map_ in tape.captures}
    side, patch = (x.shape[-2], x.shape[-1]), patch_size(body.model)
    grids = [to_grid(captured[stage], side, patch, stage.layer) for stage in stages]
    size = last.shape[-2:]
    return last, [g if g.shape[-2:] == size else F.interpolate(g, size, mode="bilinear") for g in grids]


class _Pass:
    """What a body's layers put out for one image, in the order in which they end."""

    def __init__(self, body: Body) -> None:
        self.body, self.layers = body, named_layers(body)
        x = example(body.model)
        side, patch = (x.shape[-2], x.shape[-1]), patch_size(body.model)
        self.side = side[1]
        self.calls: list[tuple[Stage, tuple[int, int], bool]] = []  # height and width, whether features
        count: Counter[str] = Counter()
        for call in watch(body, self.layers, (x,)).calls:
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
                f"stage {stride!r}: the network has no map of that stride (it has {there}); give one of them, the name "
                "of a layer, or last."
            )
        found = [stage for stage, size, features in self.calls if size == near and features]
        outside = [stage for stage in found if not any(self._leaves(p, near) for p in _parents(stage.layer))]
        return (outside or found)[-1]

    def named(self, stage: str) -> Stage:
        model = self.body.model
        try:
            (module, *others) = select(model, named_layers(model), stage).values()
        except LayerError as error:
            raise InputError(f"stage {stage!r}: {error}") from None
        if others:
            raise InputError(f"stage {stage!r} is {1 + len(others)} layers; give the name of one.")
        found = [found for found, *_ in self.calls if self.layers[found.layer] is module]
        if not found:
            raise InputError(f"stage {stage!r}: the layer puts out no map on the way to the last one; name another.")
        return found[-1]

    def _leaves(self, parent: str, size: tuple[int, int]) -> bool:
        """Whether a layer is a block that starts with maps of a size and ends with others; a mere sequence is none."""
        block = type(self.layers[parent]) is not nn.Sequential and parent in self.ends
        return block and self.starts.get(parent) == size != self.ends[parent]


def _parents(name: str) -> list[str]:
    """The layers that hold a layer, the outermost first."""
    return [name[:i] for i, letter in enumerate(name) if letter == "."]
