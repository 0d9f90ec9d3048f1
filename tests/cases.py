"""The cases that the contract tests run every method and every wrapper through, and what must be as before.

A case builds a model and its input, says under which circumstances the method runs, and which plain twin gives the
expected map.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import Any

import awkward
import pytest
import torch
import torch.nn.functional as F
from torch import nn

CLASS = 3


@dataclass
class Case:
    model: Any  # () -> module
    twin: Any = None  # module -> the plain module that the reference runs
    under: Any = contextlib.nullcontext
    dtype: torch.dtype = torch.float64
    shape: tuple[int, ...] = (2, 3, 12, 12)
    tolerance: float = 1e-9
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
    def make():
        if backend == "inductor" and not (shutil.which("g++") or shutil.which("clang++")):
            pytest.skip("inductor needs a C++ compiler")
        torch.compiler.reset()
        model = torch.compile(awkward.FeatureModule().double().eval(), backend=backend)
        model(torch.randn(2, 3, 12, 12).double())  # warmed up
        return model

    return make


def compiled_in_place():
    model = awkward.FeatureModule().double().eval()
    model.compile(backend="eager")
    model(torch.randn(2, 3, 12, 12).double())
    return model


def compiled_inside():
    torch.compiler.reset()
    model = awkward.Wrapped(awkward.FeatureModule().double().eval(), lambda y: y)
    model.inner = torch.compile(model.inner, backend="eager")
    model(torch.randn(2, 3, 12, 12).double())
    return model


def inner(model):
    return model.inner


def made_in_inference_mode(x):
    with torch.inference_mode():
        return x.clone()


CASES = {
    "plain": Case(awkward.FeatureModule),
    "one image": Case(awkward.FeatureModule, shape=(1, 3, 12, 12)),
    "many images": Case(awkward.FeatureModule, shape=(7, 3, 12, 12)),
    "not square": Case(awkward.FeatureModule, shape=(2, 3, 9, 22)),
    "frozen": Case(lambda: frozen(awkward.FeatureModule())),
    "backbone frozen": Case(lambda: half_frozen(awkward.FeatureModule())),
    "no_grad": Case(awkward.FeatureModule, under=torch.no_grad),
    "inference_mode": Case(awkward.FeatureModule, under=torch.inference_mode),
    "input needs grad": Case(awkward.FeatureModule, prepare=lambda x: x.requires_grad_()),
    "inference-mode input": Case(awkward.FeatureModule, prepare=made_in_inference_mode),
    "train mode": Case(lambda: awkward.FeatureModule().train()),
    "eval does nothing": Case(awkward.TrainOnly, twin=lambda m: twin_of(m, awkward.FeatureModule)),
    "float32": Case(awkward.FeatureModule, dtype=torch.float32, tolerance=1e-3),
    "bf16": Case(awkward.FeatureModule, dtype=torch.bfloat16, tolerance=0.12),
    "fp16": Case(awkward.FeatureModule, dtype=torch.float16, tolerance=0.03),
    "autocast": Case(
        awkward.FeatureModule,
        dtype=torch.float32,
        under=lambda: torch.autocast("cpu", torch.bfloat16),
        tolerance=0.12,
    ),
    "tuple output": Case(lambda: awkward.Wrapped(awkward.FeatureModule(), lambda y: (y, y * 2)), twin=inner),
    "dict output": Case(lambda: awkward.Wrapped(awkward.FeatureModule(), lambda y: {"logits": y}), twin=inner),
    "object output": Case(lambda: awkward.Wrapped(awkward.FeatureModule(), awkward.Output), twin=inner),
    "relu_": Case(awkward.InPlace),
    "silu_": Case(lambda: awkward.InPlace(lambda t: F.silu(t, inplace=True))),
    "hardswish_": Case(lambda: awkward.InPlace(lambda t: F.hardswish(t, inplace=True))),
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
    "compiled, eager": Case(compiled("eager"), twin=lambda m: m._orig_mod),
    "compiled, aot_eager": Case(compiled("aot_eager"), twin=lambda m: m._orig_mod),
    "compiled, inductor": Case(compiled("inductor"), twin=lambda m: m._orig_mod),
    "compiled in place": Case(compiled_in_place, twin=lambda m: twin_of(m, awkward.FeatureModule)),
    "compiled inside": Case(compiled_inside, twin=lambda m: m.inner._orig_mod),
    "fx": Case(lambda: torch.fx.symbolic_trace(awkward.FeatureModule().eval())),
    "DataParallel": Case(lambda: nn.DataParallel(awkward.FeatureModule()), twin=lambda m: m.module),
    "channels_last": Case(
        lambda: awkward.FeatureModule().to(memory_format=torch.channels_last),
        prepare=lambda x: x.contiguous(memory_format=torch.channels_last),
    ),
}  # fmt: skip

SLOW = {"compiled, inductor", "compiled, aot_eager"}


def twin_of(model, kind):
    other = kind().to(next(model.parameters()).dtype).eval()
    other.load_state_dict(model.state_dict())
    return other


def built(name):
    """A case's model and input."""
    case = CASES[name]
    torch.manual_seed(4)
    model = case.model()
    if case.dtype is not None and not name.startswith("compiled"):
        model = model.to(case.dtype)
    if name not in ("train mode", "eval does nothing"):
        model.eval()
    x = torch.randn(case.shape).to(case.dtype)
    return model, case.prepare(x) if case.prepare else x


def state_of(model, x):
    """All that must be as before."""
    return {
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "grad": [p.grad is None for p in model.parameters()],
        "values": [t.detach().clone() for t in model.state_dict().values()],
        "x": (x.requires_grad, x.grad is None, x.detach().clone()),
        "hooks": hooks(model),
        "rng": torch.get_rng_state(),
    }


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
            assert torch.equal(was, now), "the random state moved"
        else:
            assert was == now, key
    assert after["hooks"] == 0
