"""Layers that end a stage of a network, each the last map of a stride."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from camplug.errors import InputError, LayerError
from camplug.plug import get_patch_size, named_layers, select, to_grid, trace_model
from camplug.wsss.classifier.body import Body, make_example

AUTO = "auto"


class Stage(NamedTuple):
    """Layer of a body and the number of the call that returns the map (0 is the first)."""

    layer: str
    call: int = 0


def find_stage_layers(body: Body, stages: Sequence[str], what: str = "stage") -> list[Stage]:
    """Find the layers of a body with the last map of a stride.

    Args:
        body: body, run once on a black image.
        stages: strides in pixels of the network as it was built ("8", with a tolerance of half an octave where a side
            is not divisible), or names of layers. Maps inside a block that starts at this stride and ends at a coarser
            one are excluded: 8 is layer2 of a ResNet.
        what: word for the stages in error messages.

    Returns:
        One layer for each stage.

    Raises:
        InputError: no map has that stride, or the layer does not exist or returns no map before the cut.
    """
    passed = _Trace(body, what)
    return [passed.find_by_stride(stage) if stage.isdecimal() else passed.find_by_name(stage) for stage in stages]


def find_neck_stage(body: Body, stage: str = AUTO) -> tuple[str, int]:
    """Find the layer of the earlier stage that a neck reads, and its channels.

    Args:
        body: body, run once on a black image.
        stage: see `find_stage_layers`, or "auto": the last map of half the stride of the body's map; the last layer
            where there is none.

    Raises:
        InputError: the network has no such stage.
    """
    passed = _Trace(body, "stage")
    if stage == AUTO:
        layer = passed.find_half_stride()
    else:
        layer = (passed.find_by_stride(stage) if stage.isdecimal() else passed.find_by_name(stage)).layer
    with torch.no_grad():
        return layer, run_with_stage(body, make_example(body.model), layer)[1].shape[1]


def run_with_stage(body: Body, x: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Run a body, and return its map and that of an earlier layer (its last call), both [N,K,h,w] with a gradient."""
    captured: list[Tensor] = []
    # a clone, since an in-place layer may follow
    handle = body.get_submodule(layer).register_forward_hook(lambda _, inputs, output: captured.append(output.clone()))
    try:
        last: Tensor = body(x)
    finally:
        handle.remove()
    return last, to_grid(captured[-1], (x.shape[-2], x.shape[-1]), get_patch_size(body.model), layer)


class _Trace:
    """Maps that the layers of a body return for one image, in order."""

    def __init__(self, body: Body, what: str) -> None:
        self.body, self.what, self.layers = body, what, named_layers(body)
        x = make_example(body.model)
        side, patch = (x.shape[-2], x.shape[-1]), get_patch_size(body.model)
        self.side = side[1]
        self.calls: list[tuple[Stage, tuple[int, int], bool]] = []  # layer, height and width, whether it has features
        count: Counter[str] = Counter()
        for call in trace_model(body, self.layers, (x,)).calls:
            count[call.name] += 1
            try:
                h, w = to_grid(torch.empty(call.shape, device="meta"), side, patch, call.name).shape[-2:]
            except LayerError:  # not a map
                continue
            if h * w > 1:
                self.calls.append((Stage(call.name, count[call.name] - 1), (h, w), call.features))
        self.ends = {stage.layer: size for stage, size, _ in self.calls}
        self.starts: dict[str, tuple[int, int]] = {}  # containers: size of the map before them
        before = None
        for stage, size, _ in self.calls:
            for parent in _list_parents(stage.layer):
                if before is not None and parent not in self.starts:
                    self.starts[parent] = before
            before = size

    def find_by_stride(self, stride: str) -> Stage:
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
        outside = [stage for stage in found if not any(self._changes_size(p, near) for p in _list_parents(stage.layer))]
        return (outside or found)[-1]

    def find_half_stride(self) -> str:
        """Find the last layer of half the stride of the last map, or of its stride where there is none."""
        sides = [size[1] for _, size, features in self.calls if features]
        finer = [side for side in sides if 1.5 * sides[-1] <= side <= 3 * sides[-1]]
        return self.find_by_stride(str(round(self.side / (finer or sides)[-1]))).layer

    def find_by_name(self, stage: str) -> Stage:
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

    def _changes_size(self, parent: str, size: tuple[int, int]) -> bool:
        """Return whether a layer is a block, not a plain sequence, that changes the size of its maps."""
        block = type(self.layers[parent]) is not nn.Sequential and parent in self.ends
        return block and self.starts.get(parent) == size != self.ends[parent]


def _list_parents(name: str) -> list[str]:
    """List the containers of a layer, outermost first."""
    return [name[:i] for i, letter in enumerate(name) if letter == "."]
