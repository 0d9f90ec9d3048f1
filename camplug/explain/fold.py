"""Layer maps by one fused kernel on CUDA devices, and by the methods' formulas elsewhere."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Kind: TypeAlias = Literal["fully", "gradcam", "xgradcam", "positive", "layercam", "hirescam"]
KINDS: tuple[Kind, ...] = ("fully", "gradcam", "xgradcam", "positive", "layercam", "hirescam")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class _Switch(threading.local):
    def __init__(self) -> None:
        self.formulas = False


_switch = _Switch()
_failure: str | None = None  # why the kernel cannot run on this machine


def fold(kind: Kind, formula: Callable[[Tensor, Tensor], Tensor], activation: Tensor, gradient: Tensor) -> Tensor:
    """Return the map [N,h,w] of one layer from its activation and gradient [N,K,h,w].

    On a CUDA device with Triton, float32, float16 and bfloat16 tensors are read once by one kernel, which computes in
    float32 and stores nothing but the map. Everything else is computed by the formula.

    Args:
        kind: method that the formula belongs to; "positive" is Fully-CAM without its channel maximum.
        formula: function of activation and gradient, in plain PyTorch.
        activation: A, [N,K,h,w].
        gradient: g, [N,K,h,w].
    """
    global _failure
    if not can_fuse(activation, gradient):
        return formula(activation, gradient)
    try:
        from camplug.explain.fold_kernels import fold_layer

        return fold_layer(activation, gradient, KINDS.index(kind))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton compiles a launcher with the machine's C compiler
        _failure = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(
            f"the CUDA kernel of layer maps does not run on this machine ({_failure}); maps are computed step by step, "
            "which gives the same values and takes longer.",
            stacklevel=2,
        )
        return formula(activation, gradient)


def can_fuse(activation: Tensor, gradient: Tensor) -> bool:
    """Return whether the fused kernel computes the map of these tensors."""
    return (
        activation.is_cuda
        and not _switch.formulas
        and _failure is None
        and activation.dtype == gradient.dtype
        and activation.dtype in _DTYPES
        and activation.ndim == 4
        and activation.numel() > 0
        and _has_triton(activation.device)
    )


@contextmanager
def use_formulas() -> Iterator[None]:
    """Compute maps by the formulas in this thread, so that a compiler sees their operations."""
    before, _switch.formulas = _switch.formulas, True
    try:
        yield
    finally:
        _switch.formulas = before


@cache
def _has_triton(device: torch.device) -> bool:
    """Return whether Triton is installed and supports the device."""
    return find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (7, 0)
