"""The contract for methods that read attention: awkward hosts give the plain maps, and nothing stays behind."""

from __future__ import annotations

import contextlib
import copy
import threading
import weakref

import awkward
import garbage
import manual_vit
import pytest
import torch
from cases import assert_same, autocast, compiled, compiled_in_place, frozen, parallel, state_of
from torch import nn

import camplug

pytestmark = pytest.mark.slow  # a long table of cases

METHODS = ["rollout", "gradientrollout", "legrad", "gradeclip", "PropagateAttention(GradCAM)"]


def dict_output(model, x):
    return awkward.Wrapped(model, lambda y: {"logits": y})


def object_output(model, x):
    return awkward.Wrapped(model, awkward.Output)


HOSTS = {
    "frozen": (lambda model, x: frozen(model), contextlib.nullcontext),
    "no_grad": (lambda model, x: model, torch.no_grad),
    "inference_mode": (lambda model, x: model, torch.inference_mode),
    "train mode": (lambda model, x: model.train(), contextlib.nullcontext),
    "compiled": (compiled("eager"), contextlib.nullcontext),
    "compiled in place": (compiled_in_place, contextlib.nullcontext),
    "DataParallel": (parallel, contextlib.nullcontext),
    "dict output": (dict_output, contextlib.nullcontext),
    "object output": (object_output, contextlib.nullcontext),
}  # fmt: skip


def plain(method, x):
    return camplug.create(method, manual_vit.make()).maps(x, [2, 1])


@pytest.fixture
def x():
    return torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(5)).double()


@pytest.mark.parametrize(
    ("name", "method"), [(n, m) for n in HOSTS for m in METHODS if n != "compiled" or m == "legrad"]
)
def test_contract(name, method, x):
    prepare, under = HOSTS[name]
    model = prepare(manual_vit.make(), x)
    before = state_of(model, x)
    with under():
        maps = camplug.create(method, model).maps(x, [2, 1])
    assert_same(before, state_of(model, x))
    assert torch.overrides._get_current_function_mode_stack() == []
    torch.testing.assert_close(maps, plain(method, x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_autocast(method, x):
    model = manual_vit.make().float()
    with autocast(torch.device("cpu")):
        maps = camplug.create(method, model).maps(x.float(), [2, 1])
    assert maps.dtype == torch.float32
    assert (maps - plain(method, x)).abs().mean() < 0.15


@pytest.mark.parametrize("method", METHODS)
def test_two_threads_get_what_one_thread_gets(method, x):
    explainer = camplug.create(method, manual_vit.make().train())
    alone, wrong = [explainer.maps(x, c) for c in range(4)], []

    def work():
        try:
            wrong.extend(c for c in range(4) if not torch.allclose(explainer.maps(x, c), alone[c], rtol=0, atol=1e-12))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("method", METHODS)
def test_nothing_stays_alive(method, x):
    alive = []

    class Watch(nn.Module):
        def forward(self, t):
            alive.append(weakref.ref(t))
            return t

    model = manual_vit.make()
    model.blocks[1].attn.proj_drop = Watch()
    maps = camplug.create(method, model).maps(x, 1)
    garbage.collect()
    assert alive
    assert all(ref() is None for ref in alive)
    assert maps.untyped_storage().nbytes() == maps.numel() * 8


@pytest.mark.parametrize("method", METHODS)
def test_what_is_refused(method, x):
    explainer = camplug.create(method, manual_vit.make())
    for bad in (4, -1, True, 2.5, [1, 7], [[1], 2]):
        with pytest.raises(camplug.TargetError, match="class"):
            explainer.maps(x, bad)
    x[1, 0, 2, 2] = float("nan")
    with pytest.raises(camplug.TargetError, match="image 1 "):
        explainer.maps(x, 1)
    broken = awkward.Wrapped(copy.deepcopy(explainer.model), lambda y: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        camplug.create(method, broken).maps(x, 1)
    assert torch.overrides._get_current_function_mode_stack() == []
