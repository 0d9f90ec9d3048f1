"""The cases that the contract tests run every method and every wrapper through, and what must be as before.

A case builds a model and its input, says under which circumstances the method runs, and which plain twin gives the
expected map.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from functools import cache
from typing import Any

import awkward
import pytest
import simulated
import torch
import torch.nn.functional as F
from torch import nn

import camplug
from camplug.explain.registry import get_method

CLASS = 3


@dataclass
class Case:
    model: Any  # () -> module
    twin: Any = None  # module -> the plain module that the reference runs
    finish: Any = None  # (module, x) -> module: what is done once both are on their device, in their number format
    under: Any = lambda device: contextlib.nullcontext()
    dtype: torch.dtype = torch.float64
    shape: tuple[int, ...] = (2, 3, 12, 12)
    tolerance: float = 1e-9
    on_cuda: float = 0.0  # the tolerance there, where it is larger
    layers: Any = None
    prepare: Any = None  # x -> x
    names: Any = None  # the reference's layers


def frozen(model):
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def half_frozen(model):
    frozen(model)
    model.head.requires_grad_(True)
    return model


def compiled(backend):
    def finish(model, x):
        if backend == "inductor" and not (shutil.which("g++") or shutil.which("clang++")):
            pytest.skip("inductor needs a C++ compiler")
        torch.compiler.reset()
        return warmed_up(torch.compile(model, backend=backend), x)

    return finish


def compiled_in_place(model, x):
    model.compile(backend="eager")
    return warmed_up(model, x)


def compiled_inside(model, x):
    torch.compiler.reset()
    model.inner = torch.compile(model.inner, backend="eager")
    return warmed_up(model, x)


def warmed_up(model, x):
    model(x)
    return model


def parallel(model, x):
    return nn.DataParallel(model).to(x.device)  # it would take a model of the CPU to a GPU that is there


def inner(model):
    return model.inner


def wrapped_plainly():
    return awkward.Wrapped(awkward.FeatureModule(), lambda y: y)


def made_in_inference_mode(x):
    with torch.inference_mode():
        return x.clone()


def autocast(device, dtype=torch.bfloat16):
    """The device's own autocast."""
    return torch.autocast(device.type, dtype)


CASES = {
    "plain": Case(awkward.FeatureModule),
    "one image": Case(awkward.FeatureModule, shape=(1, 3, 12, 12)),
    "many images": Case(awkward.FeatureModule, shape=(7, 3, 12, 12)),
    "not square": Case(awkward.FeatureModule, shape=(2, 3, 9, 22)),
    "frozen": Case(lambda: frozen(awkward.FeatureModule())),
    "backbone frozen": Case(lambda: half_frozen(awkward.FeatureModule())),
    "no_grad": Case(awkward.FeatureModule, under=lambda device: torch.no_grad()),
    "inference_mode": Case(awkward.FeatureModule, under=lambda device: torch.inference_mode()),
    "input needs grad": Case(awkward.FeatureModule, prepare=lambda x: x.requires_grad_()),
    "inference-mode input": Case(awkward.FeatureModule, prepare=made_in_inference_mode),
    "train mode": Case(lambda: awkward.FeatureModule().train()),
    "eval does nothing": Case(awkward.TrainOnly, twin=lambda m: twin_of(m, awkward.FeatureModule)),
    "float32": Case(awkward.FeatureModule, dtype=torch.float32, tolerance=1e-3),
    "bf16": Case(awkward.FeatureModule, dtype=torch.bfloat16, tolerance=0.12),
    "fp16": Case(awkward.FeatureModule, dtype=torch.float16, tolerance=0.03),
    "autocast": Case(awkward.FeatureModule, dtype=torch.float32, under=autocast, tolerance=0.12),
    "tuple output": Case(lambda: awkward.Wrapped(awkward.FeatureModule(), lambda y: (y, y * 2)), twin=inner),
    "dict output": Case(lambda: awkward.Wrapped(awkward.FeatureModule(), lambda y: {"logits": y}), twin=inner),
    "object output": Case(lambda: awkward.Wrapped(awkward.FeatureModule(), awkward.Output), twin=inner),
    "relu_": Case(awkward.InPlace),
    "silu_": Case(lambda: awkward.InPlace(lambda t: F.silu(t, inplace=True))),
    # CUDA's kernel multiplies by 1/6 in float32, whatever the tensor's format
    "hardswish_": Case(lambda: awkward.InPlace(lambda t: F.hardswish(t, inplace=True)), on_cuda=1e-6),
    "relu6_": Case(lambda: awkward.InPlace(lambda t: F.relu6(t, inplace=True))),
    "leaky_relu_": Case(lambda: awkward.InPlace(lambda t: F.leaky_relu(t, 0.3, inplace=True))),
    "+= after the layer": Case(awkward.InPlace, layers=["conv3"]),
    "reused": Case(awkward.Reused, layers=["conv3"]),
    "unused": Case(
        awkward.Unused, layers=["conv2", "conv3", "never", "aside"], names=["conv2", "conv3"],
    ),
    "checkpointed": Case(awkward.Checkpointed, layers=["conv2", "conv3"]),
    "no_grad inside": Case(
        awkward.NoGradInside, twin=lambda m: twin_of(m, awkward.FeatureModule), layers=["conv2", "act"]
    ),
    "compiled, eager": Case(awkward.FeatureModule, finish=compiled("eager"), twin=lambda m: m._orig_mod),
    "compiled, aot_eager": Case(awkward.FeatureModule, finish=compiled("aot_eager"), twin=lambda m: m._orig_mod),
    "compiled, inductor": Case(awkward.FeatureModule, finish=compiled("inductor"), twin=lambda m: m._orig_mod),
    "compiled in place": Case(
        awkward.FeatureModule, finish=compiled_in_place, twin=lambda m: twin_of(m, awkward.FeatureModule)
    ),
    "compiled inside": Case(wrapped_plainly, finish=compiled_inside, twin=lambda m: m.inner._orig_mod),
    "fx": Case(lambda: torch.fx.symbolic_trace(awkward.FeatureModule().eval())),
    "DataParallel": Case(awkward.FeatureModule, finish=parallel, twin=lambda m: m.module),
    "channels_last": Case(
        lambda: awkward.FeatureModule().to(memory_format=torch.channels_last),
        prepare=lambda x: x.contiguous(memory_format=torch.channels_last),
    ),
}  # fmt: skip

WRAPPERS = {  # a line for `camplug.create` around any method
    "multiview": "MultiView({}, (1.0, 1.5))",
    "iterativeerasing": "IterativeErasing({}, max_iter=3)",
    "splitunite": "SplitUnite({}, smallest=4, zoom=1.5)",
    "classconditional": "ClassConditional({}, split={{'smallest': 4}}, erase={{'max_iter': 2}})",
    "compete": "Compete({}, judge=CAM)",
    "propagate": "Propagate({}, strides=(2,), zoom=1)",
    "finercam": "FinerCAM({}, 2)",
    "dense": "Dense({}, 1)",
}


CNN_METHODS = [name for name in camplug.list_methods() if not get_method(name).needs_attention]


def explainers(inner):
    """Every method, and every wrapper around `inner`, by a short name."""
    return {**{name: name for name in CNN_METHODS}, **{k: w.format(inner) for k, w in WRAPPERS.items()}}


SLOW = {"compiled, inductor", "compiled, aot_eager"}


def twin_of(model, kind):
    like = next(model.parameters())
    other = kind().to(like.device, like.dtype).eval()
    other.load_state_dict(model.state_dict())
    return other


def built(name, device):
    """A case's model and input on a device, made of the same numbers on all of them."""
    if not name.startswith("compiled"):
        return _build(name, device)
    if device.type == simulated.NAME:
        pytest.skip("torch.compile would trace the simulation itself, which runs in Python")
    model, x = _build_once(name, device)
    return model, x.clone()


def _build(name, device):
    case = CASES[name]
    torch.manual_seed(4)
    model = case.model().to(device, case.dtype)
    if name not in ("train mode", "eval does nothing"):
        model.eval()
    x = torch.randn(case.shape).to(device, case.dtype)
    if case.finish:
        model = case.finish(model, x)
    return model, case.prepare(x) if case.prepare else x


_build_once = cache(_build)  # compiling takes longer than all else, and every test checks that models stay as they are


def state_of(model, x):
    """All that must be as before."""
    return {
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "grad": [p.grad is None for p in model.parameters()],
        "values": [t.detach().clone() for t in model.state_dict().values()],
        "x": (x.requires_grad, x.grad is None, x.detach().clone()),
        "hooks": hooks(model),
        "rng": random_state(),
    }


def random_state():
    """The random state of the CPU and, where CUDA is in use, of every CUDA device."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())]


def hooks(model):
    per_module = sum(
        len(d)
        for m in model.modules()
        for d in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)
    )
    everywhere = torch.nn.modules.module
    return per_module + len(everywhere._global_forward_hooks) + len(everywhere._global_forward_pre_hooks)


def assert_same(before, after):
    for key, was in before.items():
        now = after[key]
        if key == "values":
            assert all(torch.equal(a, b) for a, b in zip(was, now, strict=True)), "a parameter or buffer changed"
        elif key == "x":
            assert was[:2] == now[:2]
            assert torch.equal(was[2], now[2])
        elif key == "rng":
            assert all(torch.equal(a, b) for a, b in zip(was, now, strict=True)), "the random state moved"
        else:
            assert was == now, key
    assert after["hooks"] == 0
