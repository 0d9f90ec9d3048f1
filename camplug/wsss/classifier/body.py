"""Networks without their head, up to the feature map that the head pools."""

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
    """Last layer of a body and the way to run the network up to it; plain data, stored in files.

    Args:
        layer: name of the last layer; "" is the whole network.
        way: "forward_features" or "features" (a method or submodule that ends there), "children" (its children in
            sequence) or "itself" (the network returns the map).
        relu: apply a ReLU to the map (DenseNet, whose last ReLU is not a module).
    """

    layer: str = ""
    way: str = "itself"
    relu: bool = False


class Body(nn.Module):
    """Feature extractor: images [N,3,H,W] to feature maps [N,K,h,w].

    Args:
        model: network, changed in place: submodules with parameters behind the cut are removed.
        cut: last layer; see `find_cut`.
    """

    def __init__(self, model: nn.Module, cut: Cut) -> None:
        super().__init__()
        self.model = model
        self.cut = cut
        if cut.layer:
            _remove_unused(model, cut.layer)
        elif cut.way == "forward_features":
            reset: Any = model.reset_classifier
            reset(0)

    @override
    def forward(self, x: Tensor) -> Tensor:
        output = _list_ways(self.model, self.cut.layer)[self.cut.way](x)
        size = (x.shape[-2], x.shape[-1])
        grid = to_grid(output, size, get_patch_size(self.model), self.cut.layer or "the whole network")
        return grid.relu() if self.cut.relu else grid


def find_cut(model: nn.Module, layer: str | None = None, *, relu: bool = False) -> Cut:
    """Find a way to run a network up to a layer.

    Args:
        model: network in evaluation mode.
        layer: layer with the last feature map; None finds it, and takes a network that returns a map as it is.
        relu: see `Cut`.

    Raises:
        ModelError: the network has no feature map, or none of the known ways leads to it.
    """
    x = torch.rand(make_example(model).shape, generator=torch.Generator().manual_seed(0)).to(make_example(model))
    with torch.no_grad():
        if layer is None:
            output = model(x)
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                return Cut()
            layer = _find_last_layer(model, x)
        with Tape(model, [layer], forward_only=True) as tape:
            model(x)
            wanted = tape[layer]
        for way, forward in _list_ways(model, layer).items():
            try:
                found = forward(x)
            except Exception:  # the code of a model may raise anything
                continue
            if isinstance(found, Tensor) and torch.equal(found, wanted):
                return Cut(layer, way, relu)
        tokens = _find_token_cut(model, x)
        if tokens:
            return tokens
    raise ModelError(
        f"this {type(model).__name__} cannot be run up to its layer {layer!r} alone; give a module that puts out its "
        "last feature map [N,K,h,w]."
    )


def make_example(model: nn.Module) -> Tensor:
    """Make a black image of a size that a network takes, [1,3,S,S]."""
    config: Any = getattr(model, "pretrained_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    fixed = getattr(getattr(model, "patch_embed", None), "img_size", None)  # timm's transformers
    side = fixed[0] if fixed else getattr(model, "image_size", None) or (size[1] if size else SIDE)
    weight = find_first_weight(model)
    x = torch.zeros(1, 3, int(side), int(side))
    return x if weight is None else x.to(weight)


def _find_last_layer(model: nn.Module, x: Tensor) -> str:
    layers = named_layers(model)
    try:
        return next(iter(select(model, layers, "last", trace_model(model, layers, (x,)))))
    except LayerError as error:
        raise ModelError(str(error)) from None


def _find_token_cut(model: nn.Module, x: Tensor) -> Cut | None:
    """Return the cut of a timm transformer at its patch tokens; None for other networks."""
    if not (callable(getattr(model, "forward_features", None)) and hasattr(model, "reset_classifier")):
        return None
    try:
        features: Any = model.forward_features
        to_grid(features(x), (x.shape[-2], x.shape[-1]), get_patch_size(model), "forward_features")
    except LayerError:
        return None
    return Cut(way="forward_features")


def _list_ways(model: nn.Module, layer: str) -> dict[str, Callable[[Tensor], Any]]:
    """Return the ways to run a network up to a layer, in order of preference."""
    methods = {name: getattr(model, name, None) for name in ("forward_features", "features")}
    if not layer:
        return {"itself": model, "forward_features": methods["forward_features"] or model}

    def children(x: Tensor) -> Any:
        for module in _list_modules_until(model, layer):
            x = module(x)
        return x

    return {**{name: m for name, m in methods.items() if callable(m)}, "children": children}


def _list_modules_until(model: nn.Module, layer: str) -> Iterator[nn.Module]:
    """List the modules of a network up to a layer, descending into the one that contains it."""
    first, _, rest = layer.partition(".")
    for name, module in model.named_children():
        if name == first:
            if rest:
                yield from _list_modules_until(module, rest)
            else:
                yield module
            return
        yield module


def _remove_unused(model: nn.Module, layer: str) -> None:
    """Replace every module with parameters that does not run before the end of a layer by an identity."""
    layers = named_layers(model)
    ran: set[str] = set()
    for call in trace_model(model, layers, (make_example(model),)).calls:
        ran.add(call.name)
        if call.name == layer:
            break
    used = {"", *(n[:i] for n in ran for i in range(1, len(n) + 1) if i == len(n) or n[i] == ".")}
    for name, module in layers.items():
        parent, _, last = name.rpartition(".")
        if name not in used and parent in used and any(True for _ in module.parameters()):
            # children of a module that ran may be used by it without being called
            if parent and parent in ran:
                continue
            setattr(model.get_submodule(parent), last, nn.Identity())
