"""Checks of layers that need more runs of the model: gradients at the patches, row-major order, maps of the image.

They are properties of the model, not of an image, so they are computed once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from typing_extensions import override

from camplug.plug.data_flow import find_images, list_floats
from camplug.plug.grid import measure_distortion
from camplug.plug.hooks import NullListener
from camplug.plug.outputs import find_logits
from camplug.plug.tensors import Probe, find_first_tensor
from camplug.plug.trace import Trace
from camplug.plug.tracer import copy_inputs, observe


class _OutputListener(NullListener, ABC):
    """Base class of listeners to the outputs of some layers.

    Args:
        names: names of the layers by the `id` of their modules.
    """

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names

    @override
    def after(self, module: nn.Module, output: Any) -> Any:
        name = self.names.get(id(module))
        if name is None:
            return None
        out, put_back = find_first_tensor(output)
        return None if out is None else self.keep(name, out, put_back)

    @abstractmethod
    def keep(self, name: str, out: Tensor, put_back: Callable[[Tensor], Any]) -> Any:
        """Keep what is needed of a layer's output; return the output in its place, or None."""


class _Reader(_OutputListener):
    """Listener that keeps the graph edges of some layers' outputs."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__(names)
        self.anchor = torch.zeros((), requires_grad=True)
        self.found: dict[str, Any] = {}

    @override
    def keep(self, name: str, out: Tensor, put_back: Callable[[Tensor], Any]) -> Any:
        torch.set_grad_enabled(True)  # the model may have disabled it here
        replaced = None
        if not out.requires_grad:
            out = Probe.apply(self.anchor, out)
            replaced = put_back(out)
        self.found[name] = torch.autograd.graph.get_gradient_edge(out)
        return replaced


def find_dead_layers(
    model: nn.Module, layers: dict[str, nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace
) -> frozenset[str] | None:
    """Return the token layers without gradient at the patches, where the score reads the class token alone.

    None if no layer has a gradient, as in torchvision's transformers, whose head is initialised to zero.
    """
    tokens = trace.list_carriers()
    laid = trace.find_layout(tokens[-1]) if tokens else None
    if laid is None or laid.others == 0:  # without other tokens, the score reads the patches
        return frozenset()
    calls = {c.name: c for c in tokens}
    reader = _Reader({id(layers[name]): name for name in calls})
    args, kwargs = copy_inputs((args, kwargs))
    output = observe(model, layers, args, reader, kwargs=kwargs, grad=True)
    logits = find_logits(output)
    ends = [t for t in ([logits] if logits is not None else list_floats(output)) if t.requires_grad]
    if not ends:
        return frozenset()
    with torch.enable_grad():  # an arbitrary combination of the scores
        mixed = [t.float() * torch.arange(1, t.numel() + 1, device=t.device).reshape(t.shape).cos() for t in ends]
        score = torch.stack([t.sum() for t in mixed]).sum()
    gradients = torch.autograd.grad(score, list(reader.found.values()), allow_unused=True)
    found, has_gradient = set(), False
    for name, gradient in zip(reader.found, gradients, strict=True):
        laid = trace.find_layout(calls[name])
        if gradient is None or not bool(gradient.any()):
            continue
        has_gradient = True
        if laid is not None and not bool(laid.lay(gradient).any()):
            found.add(name)
    return frozenset(found) if has_gradient else None


SPOTS = ((0.72, 0.18), (0.2, 0.4), (0.4, 0.8))
"""Positions of image changes as fractions of height and width, not symmetric under reflection or transposition."""


class _Keeper(_OutputListener):
    """Listener that keeps the outputs of some layers for the first image."""

    def __init__(self, names: dict[int, str], trace: Trace) -> None:
        super().__init__(names)
        self.trace = trace
        self.calls = {c.name: c for c in trace.calls}
        self.kept: dict[str, Tensor] = {}

    @override
    def keep(self, name: str, out: Tensor, put_back: Callable[[Tensor], Any]) -> None:
        laid = self.trace.find_layout(self.calls[name])
        if laid is not None and tuple(out.shape) == self.calls[name].shape:
            self.kept[name] = laid.lay(out)[0].to(torch.float32, copy=True)


def find_scattered_layers(
    model: nn.Module,
    layers: dict[str, nn.Module],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    trace: Trace,
    *,
    where: int | None = None,
) -> frozenset[str]:
    """Return the token layers whose tokens are not in row-major order, as in Hiera.

    A layer is scattered if, for most changed positions of the image, the token with the largest change is elsewhere.
    Layers whose tokens all change alike (late layers of some networks) count as row-major.
    """
    calls = {c.name: c for c in trace.list_carriers() if len(c.shape) == 3}
    if not calls or trace.size is None:
        return frozenset()
    names = {id(layers[name]): name for name in calls}

    def run(spot: tuple[float, float] | None) -> dict[str, Tensor]:
        keeper = _Keeper(names, trace)
        a, k = copy_inputs((args, kwargs))
        if spot is not None:
            given = find_images((a, k), where)
            other = None if given is None else _change_patch(given, spot, trace.patch)
            a, k = tree_map(lambda t: other if t is given else t, (a, k))
        observe(model, layers, a, keeper, kwargs=k)
        return keeper.kept

    plain = run(None)
    misses = dict.fromkeys(plain, 0)
    half = len(SPOTS) / 2
    for tried, spot in enumerate(SPOTS, 1):
        for name, now in run(spot).items():
            misses[name] += name in plain and _is_elsewhere(spot, plain[name], now)
        left = len(SPOTS) - tried
        if not any(count <= half < count + left for count in misses.values()):  # the other spots change nothing
            break
    return frozenset(name for name, count in misses.items() if count > half)


class _Shapes(_OutputListener):
    """Listener that keeps the shapes of the outputs of all layers."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__({id(module): name for name, module in layers.items()})
        self.found: dict[str, tuple[int, ...]] = {}

    @override
    def keep(self, name: str, out: Tensor, put_back: Callable[[Tensor], Any]) -> None:
        self.found[name] = tuple(out.shape)


def find_unfolded_layers(
    model: nn.Module,
    layers: dict[str, nn.Module],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    trace: Trace,
    *,
    where: int | None = None,
) -> frozenset[str]:
    """Return the layers beside attention whose output [N,C,a,b] has not the aspect of the images, as in MobileViT v2.

    Its convolutions inside of the attention put out patches x positions. Where both numbers happen to have the aspect
    of the images, images of twice the height show it: the outputs grow in width.
    """
    if not trace.attention or trace.size is None or len(trace.size) != 2:
        return frozenset()
    size = (trace.size[0], trace.size[1])
    maps = {c.name: c for c in trace.list_all_maps()}
    found = {n for n, c in maps.items() if _is_distorted(c.shape[2:], size) and _is_distorted(c.shape[1:3], size)}
    if not found:
        return frozenset()
    shapes = _Shapes(layers)
    args, kwargs = copy_inputs((args, kwargs))
    image = find_images((args, kwargs), where)
    if image is not None:
        twice = torch.cat((image, image), -2)
        args, kwargs = tree_map(lambda t: twice if t is image else t, (args, kwargs))
        try:
            observe(model, layers, args, shapes, kwargs=kwargs)
        except Exception:  # the model reads images of one size
            return frozenset(found)
    found.update(n for n, shape in shapes.found.items() if n in maps and _grows_in_width(maps[n].shape, shape))
    return frozenset(found)


def _is_distorted(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    return len(shape) == 2 and measure_distortion(shape[0], shape[1], size) > 0


def _grows_in_width(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    return len(before) == len(after) == 4 and after[2] * before[3] < after[3] * before[2]


def _change_patch(image: Tensor, spot: tuple[float, float], patch: tuple[int, int] | None) -> Tensor:
    """Return a copy of the image with one patch negated and amplified."""
    changed = image.clone()
    cut = []
    for side, at, stride in zip(image.shape[-2:], spot, patch or (16, 16), strict=True):
        step = max(stride, side // 16)
        first = int(at * side) // step * step
        cut.append(slice(first, first + step))
    part = changed[..., cut[0], cut[1]]
    part.copy_(-2 * part - image.abs().mean())
    return changed


def _is_elsewhere(spot: tuple[float, float], before: Tensor, after: Tensor) -> bool:
    """Return whether the cell of [C,h,w] with by far the largest relative change is not at `spot`."""
    change = (after - before).norm(dim=0) / before.norm(dim=0).clamp_min(1e-12)
    h, w = change.shape
    if not bool(change.max() > 4 * change.median()):
        return False
    at = int(change.argmax())
    return bool(abs(at // w + 0.5 - spot[0] * h) > 1.5 or abs(at % w + 0.5 - spot[1] * w) > 1.5)
