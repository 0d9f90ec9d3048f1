"""Helpers for single tensors: start a graph, keep a value, find the tensor in an output, pick values, send them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def detach_input(tensor: Tensor) -> Tensor:
    """The caller's tensor without its graph, and without the marks of inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor.detach() if tensor.requires_grad else tensor


def snapshot(tensor: Tensor) -> Tensor:
    """The tensor's present value: copied by whoever first overwrites it (copy on write), else now."""
    if tensor.is_cuda and torch.cuda.current_stream(tensor.device) != torch.cuda.default_stream(tensor.device):
        return tensor.clone()  # torch copies on the default stream, which does not wait for this one
    try:
        return torch._lazy_clone(tensor)
    except (AttributeError, RuntimeError, NotImplementedError):
        return tensor.clone()


def send_to(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device, without waiting for what the device has still to do.

    It goes through pinned memory, since a plain copy of what is not pinned waits for the work before it. A tensor that
    is there already is returned as it is.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def make_index(device: torch.device, values: Sequence[int]) -> Tensor:
    """Return whole numbers as an index on a device; the host does not wait for the copy."""
    return send_to(torch.tensor(values, dtype=torch.long), device)


def pick_values(matrix: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """The values [n] at n places of a matrix [N,C]; the host does not wait for the device.

    >>> pick(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [0, 1, 1], [1, 0, 1])
    tensor([2., 3., 4.])
    """
    n, width = matrix.shape
    if len(rows) == n and len(set(columns)) == 1 and list(rows) == list(range(n)):
        return matrix[:, columns[0]]
    places = [row * width + column for row, column in zip(rows, columns, strict=True)]
    return matrix.reshape(-1).index_select(0, make_index(matrix.device, places))


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
