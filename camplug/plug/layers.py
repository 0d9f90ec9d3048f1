"""Layer selection by name, glob, module, type, or the selectors "convs", "last", "stages" and "blocks"."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from camplug.errors import LayerError, ModelError
from camplug.plug.grid import CONVOLUTIONS, count_spatial_dims
from camplug.plug.model_cache import ModelCache
from camplug.plug.trace import Trace

Selector: TypeAlias = (
    str | nn.Module | type[nn.Module] | Callable[[str, nn.Module], bool] | Sequence["str | nn.Module | type[nn.Module]"]
)
"""Accepted values of `layers=`; a sequence may mix names, globs, modules and types."""

SELECTORS = ("convs", "last", "stages", "blocks")
NEEDS_TRACE = ("last", "stages", "blocks")


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return all submodules by name, without the name parts of `torch.compile`; the model itself is ""."""
    return {_strip_compile(name): m for name, m in model.named_modules()}


def _strip_compile(name: str) -> str:
    return name.replace("_orig_mod.", "").removesuffix("._orig_mod")


def needs_trace(selector: Selector, layers: dict[str, nn.Module]) -> bool:
    """Return whether the selector needs a trace of the model.

    "convs" needs none if most layers with weights are convolutions and none is part of an attention.

    Raises:
        ModelError: it does, and the model is one of TorchScript.
    """
    items = selector if isinstance(selector, (list, tuple)) else [selector]
    named = {item for item in items if isinstance(item, str)}
    needs = not named.isdisjoint(NEEDS_TRACE) or (
        "convs" in named and not _convs_first.get(layers[""], layers, "", lambda: _has_only_maps(layers))
    )
    if needs and isinstance(layers[""], torch.jit.ScriptModule):
        raise ModelError(
            "the layers of a model of TorchScript cannot be looked for; explain the model that it was made of, or take "
            "a method that reads no layers, such as RISE, Occlusion or Saliency."
        )
    return needs


def _has_only_maps(layers: dict[str, nn.Module]) -> bool:
    kind = _get_conv_kind(layers)
    inside = (m for module in layers.values() if _is_attention(module) for m in module.modules())
    return _has_mostly_convs(layers) and not any(isinstance(module, kind) for module in inside)


def _has_mostly_convs(layers: dict[str, nn.Module]) -> bool:
    convs, others, kind = 0, 0, _get_conv_kind(layers)
    for module in layers.values():
        if isinstance(module, kind):
            convs += 1
        else:
            others += any(p.ndim == 2 for p in module.parameters(recurse=False))
    return others <= max(convs, 3)


_token_layers: ModelCache[list[str]] = ModelCache()
_convs_first: ModelCache[bool] = ModelCache()
_convs: ModelCache[list[str]] = ModelCache()


def select(
    model: nn.Module, layers: dict[str, nn.Module], selector: Selector, trace: Trace | None = None
) -> dict[str, nn.Module]:
    """Resolve a selector to `{name: module}` in the order in which the model registers its layers.

    Args:
        model: an unwrapped model.
        layers: its `named_layers`.
        selector: one of
            - "convs": every convolution (`nn.Conv2d`; `nn.Conv1d` or `nn.Conv3d` if the model's first one is) with a
              feature map of the images, and one layer with tokens per transformer block. Excluded: convolutions on a
              single position (squeeze-and-excitation, heads after the pooling) and the patch convolution of a
              transformer. A convolution with adapters (LoRA) is one layer.
            - "last": the last feature map or token layer between the image and the score.
            - "stages": the last feature map or token layer of every resolution.
            - "blocks": the outermost modules of layers of every resolution (the stages of a ResNet or EfficientNet), or
              where there is none the last feature map.
            - a layer name, or a glob ("layer4.*.conv3"; "*" matches within one part of the name, "**" any number of
              parts).
            - a module, a module type, or a callable `(name, module) -> bool`.
            - a list of names, globs, modules and types.
        trace: trace of the model; needed for "last", "stages" and "blocks", and for "convs" of transformers.

    Raises:
        LayerError: nothing matches.
    """
    items: Iterable[Any] = selector if isinstance(selector, (list, tuple)) else [selector]
    wanted: set[str] = set()
    for item in items:
        wanted.update(_match_item(model, layers, item, trace))
    if not wanted:
        raise LayerError("layers= is empty; give at least one layer name, glob, module or type.")
    return {name: module for name, module in layers.items() if name in wanted}


def _match_item(model: nn.Module, layers: dict[str, nn.Module], item: Any, trace: Trace | None) -> list[str]:
    kind = type(model).__name__
    if isinstance(item, nn.Module):
        found = [name for name, module in layers.items() if module is item]
        if not found:
            raise LayerError(f"the layer {type(item).__name__} given in layers= is not a part of this {kind}.")
    elif isinstance(item, type) and issubclass(item, nn.Module):
        found = [name for name, module in layers.items() if isinstance(module, item)]
        if not found:
            raise LayerError(f"this {kind} has no layer of type {item.__name__}.")
    elif isinstance(item, str):
        found = _match_text(model, layers, item, trace)
    elif callable(item):
        found = [name for name, module in layers.items() if item(name, module)]
        if not found:
            raise LayerError(f"the callable given in layers= accepts none of the {len(layers)} layers of this {kind}.")
    else:
        raise LayerError(
            f"layers= holds {item!r}; allowed are names, globs, modules, module types, and {', '.join(SELECTORS)}."
        )
    return found


def _match_text(model: nn.Module, layers: dict[str, nn.Module], text: str, trace: Trace | None) -> list[str]:
    kind = type(model).__name__
    if text == "convs":
        found = _find_convs(model, layers, trace)
        if not found:
            raise LayerError(
                f"this {kind} has neither a convolution nor a transformer block; name its layers with layers=."
            )
        return found
    if text in NEEDS_TRACE:
        if trace is None:
            raise LayerError(f'layers="{text}" is found by watching the model run; call the model itself, not a part.')
        found = {"stages": trace.find_stages, "blocks": trace.find_outer_blocks}.get(text, trace.find_last)()
        if not found:
            raise LayerError(
                f"no layer of this {kind} puts out one feature map [N,C,h,w] that carries the image to the score; name "
                "a layer with layers=."
            )
        return found
    if text in layers:
        return [text]
    named = {id(module): name for name, module in layers.items()}  # shared modules go by their first name
    every = ((_strip_compile(name), named.get(id(m))) for name, m in model.named_modules(remove_duplicate=False))
    found = list(dict.fromkeys(own for name, own in every if own and _matches_glob(name.split("."), text.split("."))))
    if not found:
        near = difflib.get_close_matches(text, layers, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        raise LayerError(f"this {kind} has no layer named {text!r}{hint}")
    return found


def _find_convs(model: nn.Module, layers: dict[str, nn.Module], trace: Trace | None) -> list[str]:
    convs = _convs.get(model, layers, "", lambda: _list_convs(layers))
    if trace is None:
        tokens = find_token_layers(model, layers)
        return tokens if len(tokens) > len(convs) else convs
    found = [*trace.find_blocks(), *trace.keep_convs(convs)]
    if found and trace.all_end_early(found):
        raise LayerError(
            f"most of the attention of this {type(model).__name__} comes after the last of its layers with a map of "
            f"the images ({found[-1]}), so they say little about the score; name layers with layers=, and give "
            "reshape= to lay them out."
        )
    return found or convs


def _list_convs(layers: dict[str, nn.Module]) -> list[str]:
    kind = _get_conv_kind(layers)
    convs = [name for name, module in layers.items() if _is_conv(module, kind)]
    adapted = tuple(f"{name}." for name in convs if not isinstance(layers[name], kind))
    return [name for name in convs if not name.startswith(adapted)]


def _get_conv_kind(layers: dict[str, nn.Module]) -> type[nn.Module]:
    dims = count_spatial_dims(layers[""])
    return next(kind for kind, count in CONVOLUTIONS.items() if count == dims)


def _is_conv(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a module is a convolution of this kind, or one with LoRA adapters."""
    if isinstance(module, kind):
        return True
    children = dict(module.named_children())
    base = children.get("base_layer")
    return base is not None and any(name.startswith("lora_") for name in children) and _is_conv(base, kind)


def _matches_glob(name: list[str], pattern: list[str]) -> bool:
    """Return whether the parts of a name match those of a pattern; "**" matches any number of parts."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_matches_glob(name[i:], pattern[1:]) for i in range(len(name) + 1))
    return bool(name) and fnmatch.fnmatchcase(name[0], pattern[0]) and _matches_glob(name[1:], pattern[1:])


def has_attention(model: nn.Module) -> bool:
    """Return whether a module of the model is an attention, judging by the names of the classes."""
    return any(_is_attention(module) for module in model.modules())


def _is_attention(module: nn.Module) -> bool:
    return "attention" in type(module).__name__.lower()


def find_token_layers(model: nn.Module, layers: dict[str, nn.Module]) -> list[str]:
    """Find one layer with tokens per transformer block; the result is cached per model.

    A block is a module with an attention and a LayerNorm as children. The layer is the block's output; in models with
    a class token it is the block's first norm, because the last block's output has no gradient at the patches.
    """
    return _token_layers.get(model, layers, "", lambda: _find_token_layers(layers))


def _find_token_layers(layers: dict[str, nn.Module]) -> list[str]:
    class_token = any(_has_prefix_token(module) for module in layers.values())
    found = []
    for name, module in layers.items():
        children = dict(module.named_children())
        attends = any(map(_is_attention, children.values()))
        norms = [child for child, c in children.items() if isinstance(c, nn.LayerNorm)]
        if attends and norms:
            found.append(f"{name}.{norms[0]}".lstrip(".") if class_token else name)
    return found


def _has_prefix_token(module: nn.Module) -> bool:
    named = ("cls_token", "class_token", "dist_token", "reg_token", "class_embedding")
    count = getattr(module, "num_prefix_tokens", 0)
    return bool(isinstance(count, int) and count) or any(getattr(module, n, None) is not None for n in named)
