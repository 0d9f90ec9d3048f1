"""Freezing of a body's layers up to a cut."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from camplug.plug import named_layers, trace_model
from camplug.wsss.classifier.body import Body, make_example
from camplug.wsss.classifier.stages import Stage, find_stage_layers


def freeze_until(body: Body, cut: int | str | None) -> list[nn.Module]:
    """Freeze the layers of a body up to a cut; see `LearningSettings`.

    Parameters outside of layers, such as the position embedding of a transformer, are frozen if the rest of the body
    does not depend on them: a single one that learns would take the backward pass through all frozen layers.

    Returns:
        The frozen layers that have parameters or statistics of their own.

    Raises:
        InputError: no map has that stride, or the layer does not exist.
    """
    if cut is None:
        return []
    layers = named_layers(body)
    (stage,) = find_stage_layers(body, [str(cut)], "cut")
    x = make_example(body.model)
    calls = trace_model(body, layers, (x,)).calls
    last = [i for i, call in enumerate(calls) if call.name == stage.layer][stage.call]
    names = {c.name for c in calls[: last + 1]} - {c.name for c in calls[last + 1 :] if _has_own(layers[c.name])}
    frozen = [layers[name] for name in layers if name in names and _has_own(layers[name])]
    for module in frozen:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    for parameter in _find_loose_parameters(body, layers[stage.layer], stage, x):
        parameter.requires_grad_(False)
    return frozen


def _find_loose_parameters(body: Body, layer: nn.Module, stage: Stage, x: Tensor) -> list[nn.Parameter]:
    """Find the parameters of containers that the body needs for the map of a stage, and not behind it."""
    containers = [module for module in body.modules() if next(module.children(), None) is not None]
    own = [p for module in containers for p in module.parameters(recurse=False) if p.requires_grad]
    if not own:
        return []
    maps: list[Tensor] = []
    count = 0

    def cut(module: nn.Module, args: Any, output: Any) -> Tensor | None:
        nonlocal count
        count += 1
        if count - 1 != stage.call or not isinstance(output, Tensor):
            return None
        maps.append(output)
        return output.detach().requires_grad_()

    with torch.enable_grad(), layer.register_forward_hook(cut):
        out = body(x)
    if not maps or not maps[0].requires_grad:
        return []
    before = torch.autograd.grad(maps[0].sum(), own, allow_unused=True)
    behind = torch.autograd.grad(out.sum(), own, allow_unused=True)
    return [p for p, a, b in zip(own, before, behind, strict=True) if a is not None and b is None]


def _has_own(module: nn.Module) -> bool:
    own: list[Any] = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(own)
