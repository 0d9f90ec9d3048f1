"""What the tape does to single tensors: start a graph, keep a value, find the tensor in a layer's output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Probe(torch.autograd.Function):
    """Starts the graph at a layer's output: same values, no copy; nothing before it is differentiated."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, out: Tensor) -> Tensor:
        """The layer's output in the graph of `anchor`, a leaf that requires grad."""
        return out.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Nothing goes further back."""
        return None, None


def plain(tensor: Tensor) -> Tensor:
    """The caller's tensor without its graph, and without the marks of inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor.detach() if tensor.requires_grad else tensor


def snapshot(tensor: Tensor) -> Tensor:
    """The tensor's present value: copied by whoever first overwrites it (copy on write), else now."""
    try:
        return torch._lazy_clone(tensor)
    except (AttributeError, RuntimeError, NotImplementedError):
        return tensor.clone()


def first_tensor(output: Any) -> tuple[Tensor | None, Callable[[Tensor], Any]]:
    """The (first) floating-point tensor of a layer's output, and how to put another one in its place."""
    if isinstance(output, Tensor):
        return (output if output.is_floating_point() else None), lambda t: t
    if isinstance(output, (tuple, list)):
        for i, item in enumerate(output):
            if isinstance(item, Tensor) and item.is_floating_point():
                return item, lambda t, i=i: _rebuilt(output, i, t)
    if isinstance(output, dict):
        for key, item in output.items():
            if isinstance(item, Tensor) and item.is_floating_point():

                def put(tensor: Tensor, key: Any = key) -> Any:
                    output[key] = tensor
                    return output

                return item, put
    return None, lambda t: t


def _rebuilt(output: Any, i: int, tensor: Tensor) -> Any:
    items = [*output[:i], tensor, *output[i + 1 :]]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
