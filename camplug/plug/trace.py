"""Facts that one run shows about a model's layers: their outputs, if these are of the image and feed the score.

Which map is "the last one before the head" cannot be read off the order of registration: torchvision's GoogLeNet
registers its auxiliary heads last, timm's MobileNetV3 has a convolution behind the pooling. So it is watched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from camplug.errors import LayerError
from camplug.plug.data_flow import Join
from camplug.plug.grid import Layout, Pair, Spans, layout, token_grid


@dataclass(frozen=True)
class Call:
    """One call of one module, and what the run showed about its output.

    Its name and type, the shape of its output, and whether that counts as features; then whether the output is made of
    the image, feeds the score, and carries all of it (every road from the image to the score leads through it: `trunk`;
    `reads_trunk`: what it was given does); when it began and ended; whether the module has weights that mix
    (matrices, kernels) or only such that scale; and which of the model's layers with weights that mix it was.
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
    weights: str = ""  # "mix", "scale" or ""
    depth: int = 0


@dataclass(frozen=True)
class Trace:
    """The calls of one forward pass in the order in which they ended, and what else the pass showed.

    The number of classes that came out, the number of images and their size, the stride of the patch convolution, where
    in a sequence of tokens the patches stand, when attention was computed, the layers without gradient at their patches
    because the score reads the other tokens, and those whose tokens do not stand row by row.
    """

    calls: tuple[Call, ...]
    classes: int | None
    images: int | None = None
    size: Pair | None = None
    patch: Pair | None = None
    spans: Spans = field(default_factory=dict)
    attention: tuple[int, ...] = ()
    dead: frozenset[str] = frozenset()
    settled: bool = True
    scattered: frozenset[str] = frozenset()

    def layout(self, call: Call) -> Layout | None:
        """Return how the call's output lies on the grid of the images; None if it does not."""
        if self.size is None or call.name in self.scattered:
            return None
        return layout(call.shape, self.size, self.patch, images=self.images, spans=self.spans)

    def check_tokens(self, name: str) -> None:
        """Make sure that nothing shows that a layer's tokens are not those of the image, row by row.

        Raises:
            LayerError: they are made of something else (a text, queries), or stand in another order.
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

    # ---- maps of convolution networks

    def maps(self) -> list[Call]:
        """Calls that put out a feature map [N,C,h,w] of the images, the whole of them where attention is computed.

        Matrices over tokens and position biases have that shape, too, but are beside the main road.
        """
        return [c for c in self.all_maps() if c.trunk or not self.attention]

    def all_maps(self) -> list[Call]:
        """Calls that put out a feature map [N,C,h,w] of the images that feeds the score.

        No pooling, no dropout, no matrix over tokens, no class map of a 1x1 conv head; where the run shows nothing of
        the kind (what is no tensor of numbers hides connections), what comes nearest to it.
        """
        maps = [c for c in self.calls if len(c.shape) == 4 and c.features]
        maps = [c for c in maps if self.images in (None, c.shape[0])] or maps
        found = self.proved(maps)
        wide = [c for c in found if c.shape[2] * c.shape[3] > 1] or found
        while len(wide) > 1 and wide[-1].shape[1] == self.classes and any(c.shape[1] != self.classes for c in wide):
            wide.pop()
        return wide

    @staticmethod
    def proved(calls: Sequence[Call]) -> list[Call]:
        """The calls that are made of the image and feed the score; if there are none, those that feed it; or all."""
        feeding = [c for c in calls if c.feeds]
        return [c for c in feeding if c.image] or feeding or list(calls)

    # ---- tokens

    def _main_road(self) -> list[Call]:
        found: dict[int | None, Call] = {}
        for call in self.calls:
            mixes = call.trunk and call.weights == "mix" and call.depth > 1 and call.features
            if mixes and self.layout(call) and not self._within_pooling(call):
                found.setdefault(call.node, call)
        return list(found.values())

    def tokens(self) -> list[Call]:
        """Calls that carry the whole image as tokens, or as a map with its channels last, towards the score.

        Only layers that mix, because a norm in between says nothing new; of those that return one tensor the innermost;
        not what cuts the patches. Empty where the last such layer puts out a map [N,C,h,w]: a convolution network.
        """
        calls = self._main_road()
        if not calls or not self._on_tokens(calls[-1]) or self._long_before_the_head(calls[-1]):
            return []
        return calls

    def norms(self) -> list[Call]:
        """Norms that read what carries the whole image: what an attention reads first."""
        return [c for c in self.calls if c.reads_trunk and c.feeds and c.weights == "scale" and self._on_tokens(c)]

    def carriers(self) -> list[Call]:
        """The layers with tokens and the norms that read them, in the order of the calls.

        The norms alone where residual sums are written beside the layers; none in a convolution network.
        """
        tokens, road = self.tokens(), self._main_road()
        alone = self.attention and (not road or self._long_before_the_head(road[-1]))
        wanted = {*tokens, *self.norms()} if tokens or alone else set()
        return [c for c in self.calls if c in wanted]

    def _within_pooling(self, call: Call) -> bool:
        """Whether a call prepares what the attention around it reads to sum up the tokens (keys and values)."""
        parent = call.name.rpartition(".")[0]
        for around in self.calls:
            if around.name == parent and around.span[0] <= call.span[0] and call.span[1] <= around.span[1]:
                times = [at for at in self.attention if around.span[0] < at <= around.span[1]]
                return len(times) == 1 and times[0] > call.span[1] and self.layout(around) is None
        return False

    def _on_tokens(self, call: Call) -> bool:
        laid = self.layout(call)
        return laid is not None and laid.order != "NCHW"

    def readable(self) -> list[Call]:
        """Return the carriers that have a gradient at the patches; none if they end long before the head."""
        found = [c for c in self.carriers() if c.name not in self.dead]
        return found if found and not self._long_before_the_head(found[-1]) else []

    def last_tokens(self) -> list[str]:
        """The last layer with tokens; where the score reads a class token, the norm before the last attention."""
        tokens = self.tokens()
        if tokens and tokens[-1].name not in self.dead:
            return [tokens[-1].name]
        return [c.name for c in self.readable()[-1:]]

    def blocks(self) -> list[str]:
        """The layer of every transformer block that carries its tokens."""
        tokens = [c for c in self.tokens() if self._on_tokens(c)]
        count = {c: sum(c.span[0] < at <= c.span[1] for at in self.attention) for c in tokens}
        found = [c for c in tokens if count[c]] if self.attention else tokens
        around_all = all(count[c] > 1 for c in found) and len(found) <= 1 < len(self.attention)
        if not tokens or tokens[-1].name in self.dead or around_all:
            readable = [c for c in self.readable() if self._on_tokens(c)]
            before = [[c for c in readable if c.span[1] < at][-1:] for at in self.attention]
            found = [c for one in before for c in one]
        return list(dict.fromkeys(c.name for c in found))

    # ---- what the selectors mean

    def last(self) -> list[str]:
        """The last layer with tokens, or the last feature map; of containers that return it the outermost."""
        tokens = self.last_tokens()
        return tokens or [c.name for c in self.maps()[-1:] if not self._long_before_the_head(c)]

    def _long_before_the_head(self, call: Call) -> bool:
        """Whether most of the network's attention comes after a call: its last layers have no one map of all of it."""
        return sum(at > call.span[1] for at in self.attention) > max(2, len(self.attention) // 2)

    def stages(self) -> list[str]:
        """The last feature map (or layer with tokens) of every resolution."""
        blocks = self.blocks()
        if not blocks and not self.last():
            return []
        maps = [c.name for c in self.maps() if not blocks or not self._on_tokens(c)]
        by_size: dict[tuple[int, ...], str] = {}
        for names in (maps, blocks):  # of a size that has both, the block
            for call in self.calls:
                if call.name in names and call.features:
                    laid = self.layout(call)
                    by_size[(laid.h, laid.w) if laid else call.shape[2:]] = call.name
        return list(by_size.values())

    def stops_early(self, names: Sequence[str]) -> bool:
        """Whether all calls of these layers end long before the head."""
        return all(self._long_before_the_head(c) for c in self.calls if c.name in names)

    def convs(self, convs: Sequence[str]) -> list[str]:
        """Keep the convolutions that put out a map of the images (not of one position) that feeds the score."""
        first = 1 if self.blocks() else 0  # where blocks follow, the first convolution cuts the patches
        mine = {c.name for c in self.all_maps() if c.depth > first or not c.depth}
        return [name for name in convs if name in mine]


def find_spans(joins: Sequence[Join], size: Pair | None, patch: Pair | None) -> Spans:
    """Return the places of patches in sequences of tokens, {length: (first, count)}, from how they were joined.

    >>> spans_of([Join(((1, False), (16, True))), Join(((17, True), (5, False)))], (64, 64), (16, 16))
    {17: (1, 16), 22: (1, 16)}
    """
    spans: Spans = {}
    for join in joins:
        found, first = [], 0
        for length, of_image in join.parts:
            if of_image and length in spans:
                found.append((first + spans[length][0], spans[length][1]))
            elif of_image and size is not None and token_grid(length, size, patch) is not None:
                found.append((first, length))
            first += length
        if len(found) == 1 and join.length not in spans:
            spans[join.length] = found[0]
    return spans
