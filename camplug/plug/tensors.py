"""Tensor helpers: graph roots, snapshots, the tensor in a layer's output, indexing, device transfer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from camplug.errors import InputError


class Probe(torch.autograd.Function):
    """Autograd function that starts a graph at a layer's output, without a copy and without gradients before it."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, out: Tensor) -> Tensor:
        """Return the layer's output, attached to the graph of `anchor`, a leaf that requires grad."""
        return out.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return no gradients."""
        return None, None


def detach_input(tensor: Tensor) -> Tensor:
    """Return an input tensor detached from its graph; a tensor made in inference mode is copied."""
    return tensor.clone() if tensor.is_inference() else tensor.detach() if tensor.requires_grad else tensor


def snapshot(tensor: Tensor) -> Tensor:
    """Return a copy of the tensor, copy-on-write where torch supports it."""
    if tensor.is_cuda and torch.cuda.current_stream(tensor.device) != torch.cuda.default_stream(tensor.device):
        return tensor.clone()  # torch copies on the default stream, which does not wait for this one
    try:
        return torch._lazy_clone(tensor)
    except (AttributeError, RuntimeError, NotImplementedError):
        return tensor.clone()


def resolve_device(device: torch.device | str | None) -> torch.device:
    """Return a device that exists, with its index, as tensors have it; None is the CPU.

    Raises:
        InputError: the device does not exist.
    """
    try:
        found = torch.empty(0, device=torch.device("cpu" if device is None else device)).device
    except (RuntimeError, TypeError, AssertionError):
        found = None
    if found is None or found.type == "meta":  # which holds no values
        has = "cpu" + (f", cuda ({torch.cuda.device_count()})" if torch.cuda.is_available() else "")
        raise InputError(f"the device {str(device)!r} is not available here; there is: {has}.")
    return found


def send_to(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, without waiting for the work queued there.

    CPU tensors go through pinned memory, because copying pageable memory synchronises. A tensor that is already on the
    device is returned unchanged.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def make_index(device: torch.device, values: Sequence[int]) -> Tensor:
    """Return an index tensor (int64) on a device, copied without synchronisation."""
    return send_to(torch.tensor(values, dtype=torch.long), device)


def pick_values(matrix: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Return the values [n] at n positions of a matrix [N,C], without synchronisation.

    >>> pick_values(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [0, 1, 1], [1, 0, 1])
    tensor([2., 3., 4.])
    """
    n, width = matrix.shape
    if len(rows) == n and len(set(columns)) == 1 and list(rows) == list(range(n)):
        return matrix[:, columns[0]]
    places = [row * width + column for row, column in zip(rows, columns, strict=True)]
    return matrix.reshape(-1).index_select(0, make_index(matrix.device, places))


def find_first_tensor(output: Any) -> tuple[Tensor | None, Callable[[Tensor], Any]]:
    """Return the first floating-point tensor of a layer's output, and a function that puts another in its place."""
    if isinstance(output, Tensor):
        return (output if output.is_floating_point() else None), lambda t: t
    if isinstance(output, (tuple, list)):
        for i, item in enumerate(output):
            if isinstance(item, Tensor) and item.is_floating_point():
                return item, lambda t, i=i: _replace_item(output, i, t)
    if isinstance(output, dict):
        for key, item in output.items():
            if isinstance(item, Tensor) and item.is_floating_point():

                def put(tensor: Tensor, key: Any = key) -> Any:
                    output[key] = tensor
                    return output

                return item, put
    return None, lambda t: t


def _replace_item(output: Any, i: int, tensor: Tensor) -> Any:
    items = [*output[:i], tensor, *output[i + 1 :]]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
