"""Trace of one forward pass: call order, output shapes and data flow per layer.

The order of registration does not show the last map before the head: torchvision's GoogLeNet registers its auxiliary
heads last, timm's MobileNetV3 has a convolution after the pooling.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from camplug.errors import LayerError
from camplug.plug.grid import Layout, Pair, Size, Spans, find_layout


@dataclass(frozen=True)
class Call:
    """Call of a module.

    Attributes:
        name: name of the layer.
        kind: class name of the module.
        shape: shape of the output.
        features: the output may be a feature map (no pooling, dropout, ...).
        image: the output depends on the image.
        feeds: the score depends on the returned output; not if it reads the same tensor inside the module only.
        trunk: every path from the image to the score contains the returned output.
        reads_trunk: every path from the image to the score contains the input.
        node: the output's operation in the data-flow graph.
        span: clock values of start and end.
        weights: "mix" (matrices, kernels), "scale" (vectors only) or "" (none).
        depth: number of calls with "mix" weights up to this one.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    features: bool
    image: bool = True
    feeds: bool = True
    trunk: bool = False
    reads_trunk: bool = False
    node: int | None = None
    span: tuple[int, int] = (0, 0)
    weights: str = ""
    depth: int = 0


@dataclass(frozen=True)
class Trace:
    """Record of one forward pass.

    Attributes:
        calls: module calls in the order in which they ended.
        classes: number of classes.
        images: number of images.
        size: spatial size of the images: (height, width); (length,) of signals, (depth, height, width) of volumes.
        patch: stride of the patch convolution.
        spans: positions of the patch tokens by sequence length.
        attention: clock values of all attentions.
        dead: layers without gradient at their patches, because the score reads other tokens.
        is_final: `dead` is known; False if no layer had a gradient.
        scattered: layers whose tokens are not in row-major order.
        unfolded: layers whose output [N,C,a,b] is no map of the images, such as patches x positions.
    """

    calls: tuple[Call, ...]
    classes: int | None
    images: int | None = None
    size: Size | None = None
    patch: Pair | None = None
    spans: Spans = field(default_factory=dict)
    attention: tuple[int, ...] = ()
    dead: frozenset[str] = frozenset()
    is_final: bool = True
    scattered: frozenset[str] = frozenset()
    unfolded: frozenset[str] = frozenset()

    def find_layout(self, call: Call) -> Layout | None:
        """Return the arrangement of the call's output on the grid of the images; None if there is none.

        None for signals and volumes, whose tokens are not recognised.
        """
        if self.size is None or len(self.size) != 2 or call.name in self.scattered:
            return None
        return find_layout(call.shape, self.size, self.patch, images=self.images, spans=self.spans)

    def check_tokens(self, name: str) -> None:
        """Check that a layer's tokens are patches of the image in row-major order.

        Raises:
            LayerError: the tokens depend on something else (text, queries), or have another order.
        """
        calls = [c for c in self.calls if c.name == name]
        if calls and not any(c.image for c in calls):
            raise LayerError(
                f"the layer {name!r} puts out {list(calls[0].shape)}, which is not made of the images; name a layer of "
                "the image encoder."
            )
        if name in self.scattered:
            raise LayerError(
                f"the tokens of the layer {name!r} do not stand row by row: a change of the image shows in another "
                "place; name a later layer, or give reshape= to lay them out."
            )

    # ---- maps of convolutional networks

    def list_maps(self) -> list[Call]:
        """List the calls with a feature map [N,C,h,w] of the images; with attention, only those on every path.

        Attention matrices and position biases have this shape, too, but are on side branches.
        """
        return [c for c in self.list_all_maps() if c.trunk or not self.attention]

    def list_all_maps(self) -> list[Call]:
        """List the calls with a feature map [N,C,h,w] of the images that feeds the score.

        Excluded are pooling, dropout, `unfolded` layers and the class maps of a 1x1 convolution head. Conditions that
        no call meets are dropped, because the data flow is incomplete where values leave torch.
        """
        dims = 2 if self.size is None else len(self.size)
        maps = [c for c in self.calls if len(c.shape) == dims + 2 and c.features]
        maps = [c for c in maps if self.images in (None, c.shape[0])] or maps
        maps = [c for c in maps if c.name not in self.unfolded] or maps
        found = self.keep_connected(maps)
        wide = [c for c in found if math.prod(c.shape[2:]) > 1] or found
        while len(wide) > 1 and wide[-1].shape[1] == self.classes and any(c.shape[1] != self.classes for c in wide):
            wide.pop()
        return wide

    @staticmethod
    def keep_connected(calls: Sequence[Call]) -> list[Call]:
        """Keep the calls between image and score; if there are none, those that feed the score, or else all."""
        feeding = [c for c in calls if c.feeds]
        return [c for c in feeding if c.image] or feeding or list(calls)

    # ---- tokens

    def _list_trunk(self) -> list[Call]:
        found: dict[int | None, Call] = {}
        for call in self.calls:
            mixes = call.trunk and call.weights == "mix" and call.depth > 1 and call.features
            if mixes and self.find_layout(call) and not self._is_in_pooling(call):
                found.setdefault(call.node, call)
        return list(found.values())

    def list_tokens(self) -> list[Call]:
        """List the calls on every path from image to score with tokens or channels-last maps.

        Only layers with "mix" weights after the first; the innermost of those that return the same tensor. Empty for
        convolutional networks, whose last such layer has a map [N,C,h,w]. A 1x1 convolution to the classes, and a
        module that only lays its tokens out as a map, do not count as last.
        """
        calls = self._drop_map_head(self._list_trunk())
        if not calls or not self._has_tokens(calls[-1]) or self._ends_early(calls[-1]):
            return []
        return calls

    def _drop_map_head(self, calls: list[Call]) -> list[Call]:
        """Drop a 1x1 convolution to the classes at the end, and the modules before it that lay tokens out as a map."""
        if len(calls) < 2 or len(calls[-1].shape) != 4 or not calls[-1].shape[1] == self.classes != calls[-2].shape[1]:
            return calls
        calls = calls[:-1]
        while len(calls) > 1 and self._has_tokens(calls[-2]):
            around, laid = calls[-1], self.find_layout(calls[-2])
            inside = around.span[0] <= calls[-2].span[0] and calls[-2].span[1] <= around.span[1]
            if not inside or laid is None or around.shape[2:] != (laid.h, laid.w):
                break
            calls = calls[:-1]
        return calls

    def list_norms(self) -> list[Call]:
        """List the norms that read the trunk, which are the first layers of attention blocks."""
        return [c for c in self.calls if c.reads_trunk and c.feeds and c.weights == "scale" and self._has_tokens(c)]

    def list_carriers(self) -> list[Call]:
        """List the calls with tokens and the norms that read them; empty for convolutional networks.

        Only the norms are listed if residual sums are computed outside of layers.
        """
        tokens, trunk = self.list_tokens(), self._list_trunk()
        alone = self.attention and (not trunk or self._ends_early(trunk[-1]))
        wanted = {*tokens, *self.list_norms()} if tokens or alone else set()
        return [c for c in self.calls if c in wanted]

    def _is_in_pooling(self, call: Call) -> bool:
        """Return whether a call computes keys or values of an attention pooling."""
        parent = call.name.rpartition(".")[0]
        for around in self.calls:
            if around.name == parent and around.span[0] <= call.span[0] and call.span[1] <= around.span[1]:
                times = [at for at in self.attention if around.span[0] < at <= around.span[1]]
                return len(times) == 1 and times[0] > call.span[1] and self.find_layout(around) is None
        return False

    def _has_tokens(self, call: Call) -> bool:
        laid = self.find_layout(call)
        return laid is not None and laid.order != "NCHW"

    def list_readable(self) -> list[Call]:
        """List the carriers with a gradient at the patches; empty if they end long before the head."""
        found = [c for c in self.list_carriers() if c.name not in self.dead]
        return found if found and not self._ends_early(found[-1]) else []

    def find_last_tokens(self) -> list[str]:
        """Return the last layer with tokens; if the score reads a class token, the norm before the last attention."""
        tokens = self.list_tokens()
        if tokens and tokens[-1].name not in self.dead:
            return [tokens[-1].name]
        return [c.name for c in self.list_readable()[-1:]]

    def find_blocks(self) -> list[str]:
        """Return one layer with tokens per transformer block."""
        tokens = [c for c in self.list_tokens() if self._has_tokens(c)]
        count = {c: sum(c.span[0] < at <= c.span[1] for at in self.attention) for c in tokens}
        found = [c for c in tokens if count[c]] if self.attention else tokens
        around_all = all(count[c] > 1 for c in found) and len(found) <= 1 < len(self.attention)
        if not tokens or tokens[-1].name in self.dead or around_all:
            readable = [c for c in self.list_readable() if self._has_tokens(c)]
            before = [[c for c in readable if c.span[1] < at][-1:] for at in self.attention]
            found = [c for one in before for c in one]
        return list(dict.fromkeys(c.name for c in found))

    # ---- selectors

    def find_last(self) -> list[str]:
        """Return the last layer with tokens, or the last feature map; the outermost of containers that return it."""
        tokens = self.find_last_tokens()
        return tokens or [c.name for c in self.list_maps()[-1:] if not self._ends_early(c)]

    def _ends_early(self, call: Call) -> bool:
        """Return whether most of the network's attention comes after a call."""
        return sum(at > call.span[1] for at in self.attention) > max(2, len(self.attention) // 2)

    def find_stages(self) -> list[str]:
        """Return the last feature map or layer with tokens of every resolution."""
        return list(dict.fromkeys(call.name for call in self._list_stages()))

    def _list_stages(self) -> list[Call]:
        blocks = self.find_blocks()
        if not blocks and not self.find_last():
            return []
        maps = [c.name for c in self.list_maps() if not blocks or not self._has_tokens(c)]
        by_size: dict[tuple[int, ...], Call] = {}
        for names in (maps, blocks):  # blocks win over maps of the same size
            for call in self.calls:
                if call.name in names and call.features:
                    laid = self.find_layout(call)
                    by_size[(laid.h, laid.w) if laid else call.shape[2:]] = call
        return list(by_size.values())

    def find_calls(self, selector: object) -> dict[str, frozenset[int]]:
        """Return the numbers of the calls that "last" or "stages" means, of layers that run several times.

        Such as one ReLU module for all layers of a network. Of calls side by side, as in an encoder of two images, none
        is the last: layers whose calls do not lie on every path from the image to the score are left out.
        """
        counts = Counter(c.name for c in self.calls)
        repeated = {name for name, count in counts.items() if count > 1}
        if not repeated or selector not in ("last", "stages"):
            return {}
        last = [c for name in self.find_last() for c in self.calls if c.name == name][-1:]
        wanted = [c for c in (last if selector == "last" else self._list_stages()) if c.name in repeated]
        found: dict[str, frozenset[int]] = {}
        for name in {c.name for c in wanted}:
            if all(c.trunk for c in wanted if c.name == name):
                calls = [c for c in self.calls if c.name == name]
                found[name] = frozenset(k for k, c in enumerate(calls) if any(c is one for one in wanted))
        return found

    def find_outer_blocks(self) -> list[str]:
        """Return the outermost modules of layers of every resolution; without one, its entry of `find_stages`."""
        sizes = {c.name: c.shape[2:] for c in self.list_maps()}
        depth = {name: name.count(".") for name in sizes if any(n.startswith(f"{name}.") for n in sizes)}
        outer = {sizes[n]: min(d for m, d in depth.items() if sizes[m] == sizes[n]) for n in depth}
        blocks = [n for n, d in depth.items() if d == outer[sizes[n]]]
        return [*blocks, *(n for n in self.find_stages() if sizes.get(n) not in outer)]

    def all_end_early(self, names: Sequence[str]) -> bool:
        """Return whether all calls of these layers end long before the head."""
        return all(self._ends_early(c) for c in self.calls if c.name in names)

    def keep_convs(self, convs: Sequence[str]) -> list[str]:
        """Keep the convolutions with a feature map of the images that feeds the score and has several positions."""
        first = 1 if self.find_blocks() else 0  # 1: skip the patch convolution
        maps = [c for c in self.list_all_maps() if c.depth > first or not c.depth]
        mine = {c.name for c in maps}
        return [name for name in convs if name in mine]
