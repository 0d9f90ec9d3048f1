"""A device without hardware: tensors that compute on the CPU, and refuse what a GPU refuses.

`torch.device("simulated")` behaves like a GPU where code goes wrong on one: tensors of two devices do not mix, numpy
cannot read a tensor before `.cpu()`, a backward pass runs in a thread of its own, and a generator of the CPU draws no
numbers there. `count_waits` counts what would make the host wait for the device. Values are the CPU's, to the bit.

Registered with torch by `register()`, which `pytest --device simulated` calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import library
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import return_and_correct_aliasing

NAME = "simulated"
AUTOCAST = "AutocastPrivateUse1"
# CUDA's kernels take indices and values from the CPU, too; 0-dimensional tensors may always be mixed
TAKES_CPU = {"copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
WAITS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "unique_dim", "_unique2", "unique_consecutive"}

_waits: list[Counter[str]] = []
_registered: list[Any] = []


class SimulatedTensor(torch.Tensor):
    """A tensor of the simulated device; `inner` holds the values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> SimulatedTensor:
        with torch.inference_mode(inner.is_inference()):  # a view made in inference mode may be a normal tensor
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                layout=inner.layout,
                device=torch.device(NAME, 0),
            )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def __getitem__(self, index):
        return super().__getitem__(as_tensors(index))

    def __setitem__(self, index, value):
        super().__setitem__(as_tensors(index), value)

    def tolist(self):
        return self.cpu().tolist()

    def __repr__(self):
        return f"SimulatedTensor({self.inner})"


def as_tensors(index: Any) -> Any:
    """An index whose lists are tensors; torch itself would make them in C++, where no Python is asked."""
    parts = index if isinstance(index, tuple) else (index,)
    made = tuple(
        torch.tensor([*p], dtype=None if len(p) else torch.long) if isinstance(p, (list, range)) else p for p in parts
    )
    return made if isinstance(index, tuple) else made[0]


def counts_a_mask(name: str, args: Any) -> bool:
    """Whether an operation counts what a mask lets through: `x[mask]`, and `x[mask] = values` of many values."""
    if name not in ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    masks = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return masks and ("put" not in name or args[2].numel() > 1)


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on tensors of this device, computed by the CPU's kernel.

    Raises:
        RuntimeError: tensors of two devices.
    """
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        return func.decompose(*args, **kwargs)  # tensors of inference mode get here with `to`, not `_to_copy`
    name = func._schema.name.split("::")[1]
    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    here = [t for t in tensors if isinstance(t, SimulatedTensor)]
    if here and name not in TAKES_CPU and any(t.ndim and not isinstance(t, SimulatedTensor) for t in tensors):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! "
            f"(in {func})"
        )
    if any(isinstance(a, torch.Generator) for a in pytree.tree_leaves((args, kwargs))):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu' (in {func})")
    wanted = kwargs.get("device")
    stays = wanted is None or torch.device(wanted).type == NAME
    moved = name == "_to_copy" and (bool(here) != stays)
    # CUDA's kernels take an index from the CPU by a copy that is waited for
    from_cpu = name.startswith(("index", "_index")) and any(
        t.ndim and not isinstance(t, SimulatedTensor) for t in tensors
    )
    copied = name == "copy_" and len({isinstance(t, SimulatedTensor) for t in args[:2]}) > 1
    blocking = (moved and not kwargs.get("non_blocking")) or (
        copied and not (args[2:] or (kwargs.get("non_blocking"),))[0]
    )
    if name in WAITS or from_cpu or blocking or counts_a_mask(name, args):
        for counter in _waits:
            counter[name] += 1
    args_there, kwargs_there = pytree.tree_map_only(SimulatedTensor, lambda t: t.inner, (args, kwargs))
    if wanted is not None:
        kwargs_there["device"] = torch.device("cpu") if stays else wanted
    kwargs_there.pop("pin_memory", None)
    out = func(*args_there, **kwargs_there)
    if moved and name == "_to_copy":  # CPU to CPU may give the same storage; two devices never share one
        out = out.clone()
    if not stays:
        return out
    out = pytree.tree_map_only(torch.Tensor, lambda t: t if isinstance(t, SimulatedTensor) else SimulatedTensor(t), out)
    return return_and_correct_aliasing(func, args, kwargs, out)


@contextmanager
def count_waits() -> Iterator[Counter[str]]:
    """Count, by operation, what makes the host wait for the device in this block: `.item()`, copies, `nonzero`."""
    counter: Counter[str] = Counter()
    _waits.append(counter)
    try:
        yield counter
    finally:
        _waits.remove(counter)


def register() -> None:
    """Make `torch.device("simulated")` known to torch; once per process, for good."""
    if _registered:
        return
    from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

    class Module(_DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.float16, torch.bfloat16]

    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    _registered.append(library.Library("_", "IMPL"))
    _registered[0].fallback(lambda func, *args, **kwargs: run(func, args, kwargs), "PrivateUse1")
    # `model.half()` would put new values into `parameter.data`, where `inner` does not follow
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    # autocast: convolutions and linear layers run in the narrow format, as on a GPU; everything else as it comes
    _registered[0].fallback(library.fallthrough_kernel, AUTOCAST)
    _registered.append(library.Library("aten", "IMPL"))
    for op in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
        _registered[1].impl(op._schema.name.removeprefix("aten::"), partial(_narrow, op), AUTOCAST)


def _narrow(op: Any, *args: Any) -> Any:
    dtype, key = torch.get_autocast_dtype(NAME), getattr(torch._C.DispatchKey, AUTOCAST)
    args = tuple(a.to(dtype) if isinstance(a, torch.Tensor) and a.dtype == torch.float32 else a for a in args)
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
        return op(*args)
