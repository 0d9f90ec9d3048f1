"""A network without its head: up to the feature map that the head pools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import LayerError, ModelError
from camplug.plug import Tape, find_first_weight, get_patch_size, named_layers, select, to_grid, trace_model

SIDE = 224


@dataclass(frozen=True)
class Cut:
    """Where a network is cut, and how it is run up to there; plain data, kept in files.

    Args:
        layer: the last one that runs; "" is the whole network.
        way: "forward_features" or "features" (a method or a part of the network that ends there), "children" (its
            parts one after another) or "itself" (it puts out the map).
        relu: the head reads the positive part of the map (DenseNet, whose last ReLU is no layer).
    """

    layer: str = ""
    way: str = "itself"
    relu: bool = False


class Body(nn.Module):
    """Turns images [N,3,H,W] into feature maps [N,K,h,w].

    Args:
        model: a network; it is kept, and what comes behind the cut and holds parameters is taken out of it.
        cut: where its features end; see `find_cut`.
    """

    def __init__(self, model: nn.Module, cut: Cut) -> None:
        super().__init__()
        self.model = model
        self.cut = cut
        if cut.layer:
            _take_out_the_rest(model, cut.layer)
        elif cut.way == "forward_features":
            reset: Any = model.reset_classifier
            reset(0)

    @override
    def forward(self, x: Tensor) -> Tensor:
        output = _ways(self.model, self.cut.layer)[self.cut.way](x)
        size = (x.shape[-2], x.shape[-1])
        grid = to_grid(output, size, get_patch_size(self.model), self.cut.layer or "the whole network")
        return grid.relu() if self.cut.relu else grid


def find_cut(model: nn.Module, layer: str | None = None, *, relu: bool = False) -> Cut:
    """How to run a network up to a layer.

    Args:
        model: in evaluation mode.
        layer: that puts out the last feature map; None finds it, and takes a network that puts out a map as it is.
        relu: see `Cut`.

    Raises:
        ModelError: it has no feature map, or cannot be run up to it in any of the known ways.
    """
    x = torch.rand(example(model).shape, generator=torch.Generator().manual_seed(0)).to(example(model))
    with torch.no_grad():
        if layer is None:
            output = model(x)
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                return Cut()
            layer = _last(model, x)
        with Tape(model, [layer], forward_only=True) as tape:
            model(x)
            wanted = tape[layer]
        for way, forward in _ways(model, layer).items():
            try:
                found = forward(x)
            except Exception:  # somebody's own code may raise anything; then this is not the way
                continue
            if isinstance(found, Tensor) and torch.equal(found, wanted):
                return Cut(layer, way, relu)
        tokens = _tokens(model, x)
        if tokens:
            return tokens
    raise ModelError(
        f"this {type(model).__name__} cannot be run up to its layer {layer!r} alone; give a module that puts out its "
        "last feature map [N,K,h,w]."
    )


def example(model: nn.Module) -> Tensor:
    """An image that a network takes, [1,3,S,S], all black."""
    config: Any = getattr(model, "pretrained_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    fixed = getattr(getattr(model, "patch_embed", None), "img_size", None)  # timm's transformers
    side = fixed[0] if fixed else getattr(model, "image_size", None) or (size[1] if size else SIDE)
    weight = find_first_weight(model)
    x = torch.zeros(1, 3, int(side), int(side))
    return x if weight is None else x.to(weight)


def _last(model: nn.Module, x: Tensor) -> str:
    layers = named_layers(model)
    try:
        return next(iter(select(model, layers, "last", trace_model(model, layers, (x,)))))
    except LayerError as error:
        raise ModelError(str(error)) from None


def _tokens(model: nn.Module, x: Tensor) -> Cut | None:
    """A timm transformer's patch tokens, whose last layer is more than the parts of the network one after another."""
    if not (callable(getattr(model, "forward_features", None)) and hasattr(model, "reset_classifier")):
        return None
    try:
        features: Any = model.forward_features
        to_grid(features(x), (x.shape[-2], x.shape[-1]), get_patch_size(model), "forward_features")
    except LayerError:
        return None
    return Cut(way="forward_features")


def _ways(model: nn.Module, layer: str) -> dict[str, Callable[[Tensor], Any]]:
    """How a network may be run up to a layer, the most natural way first."""
    methods = {name: getattr(model, name, None) for name in ("forward_features", "features")}
    if not layer:
        return {"itself": model, "forward_features": methods["forward_features"] or model}

    def children(x: Tensor) -> Any:
        for module in _up_to(model, layer):
            x = module(x)
        return x

    return {**{name: m for name, m in methods.items() if callable(m)}, "children": children}


def _up_to(model: nn.Module, layer: str) -> Iterator[nn.Module]:
    """The parts of a network up to a layer; of the part that holds it, again the parts."""
    first, _, rest = layer.partition(".")
    for name, module in model.named_children():
        if name == first:
            if rest:
                yield from _up_to(module, rest)
            else:
                yield module
            return
        yield module


def _take_out_the_rest(model: nn.Module, layer: str) -> None:
    """Put nothing in place of every part with parameters that does not run up to the layer."""
    layers = named_layers(model)
    ran: set[str] = set()
    for call in trace_model(model, layers, (example(model),)).calls:
        ran.add(call.name)
        if call.name == layer:
            break
    alive = {"", *(n[:i] for n in ran for i in range(1, len(n) + 1) if i == len(n) or n[i] == ".")}
    for name, module in layers.items():
        parent, _, last = name.rpartition(".")
        if name not in alive and parent in alive and any(True for _ in module.parameters()):
            # parts of a part that ran are its own business, even those that did not run as modules
            if parent and parent in ran:
                continue
            setattr(model.get_submodule(parent), last, nn.Identity())
