"""Functions run on a device with arguments and results on the CPU, so that one test serves all devices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import simulated
import torch
from torch import nn
from torch.utils import _pytree as pytree

from camplug.wsss.fpr import Prototypes


def moved(things: Any, device: Any) -> Any:
    """Tensors, within tuples, lists and dicts, on a device; their gradients find the way back."""
    return pytree.tree_map(lambda x: x.to(device) if isinstance(x, (torch.Tensor, Prototypes)) else x, things)


def on(device: torch.device, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function on a device; what it returns, which must lie there, comes to the CPU.

    The parameters of a module stay where they are, with the gradients; what it changes in its buffers is lost.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = moved((args, kwargs), device)
        if isinstance(function, nn.Module):
            state = moved({**dict(function.named_parameters()), **dict(function.named_buffers())}, device)
            found = torch.func.functional_call(function, state, args, kwargs)
        else:
            found = function(*args, **kwargs)
        for x in pytree.tree_leaves(found):
            assert not isinstance(x, torch.Tensor) or x.device.type == device.type, f"{function} returned {x.device}"
        return moved(found, "cpu")

    return run


def everywhere(*names: str) -> Any:
    """A fixture for a file of tests: its functions of these names run on the tests' device."""

    @pytest.fixture(autouse=True)
    def on_the_device(request, monkeypatch, device):
        for name in names:
            monkeypatch.setattr(request.module, name, on(device, getattr(request.module, name)))

    return on_the_device


@contextmanager
def without_waits(device: torch.device):
    """Refuse what makes the host wait for the device; nothing is refused on the CPU, where there is no waiting."""
    if device.type == "cuda":
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
        return
    with simulated.count_waits() if device.type == simulated.NAME else nullcontext() as waits:
        yield
    assert not waits, dict(waits)
