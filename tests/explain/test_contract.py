"""The contract: every method through every awkward case, against the reference, and nothing left behind.

One table, `CASES`. A case builds a model and its input, says under which circumstances the method runs, and which
plain twin gives the expected map.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import shutil
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import awkward
import pytest
import torch
import torch.nn.functional as F
from reference import FORMULAS, record, reference_cam, reference_map, relative_error
from torch import nn

import camplug
from camplug.plug import tape

METHODS = ["cam", *FORMULAS]
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


@pytest.fixture
def captured(monkeypatch):
    """Weak references to every activation and gradient that an explanation gets to see."""
    seen: list[Any] = []
    snapshot, on_grid = tape.snapshot, camplug.LayerExplainer.on_grid

    def watched_snapshot(tensor):
        kept = snapshot(tensor)
        seen.append(weakref.ref(kept))
        return kept

    def watched_grid(self, tensor, layer, x):
        seen.append(weakref.ref(tensor))
        return on_grid(self, tensor, layer, x)

    monkeypatch.setattr(tape, "snapshot", watched_snapshot)
    monkeypatch.setattr(camplug.LayerExplainer, "on_grid", watched_grid)
    return seen


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


def expected_maps(case, method, model, x):
    twin = (case.twin or (lambda m: m))(model)
    layers = case.names or case.layers
    maps = []
    for image in x.detach().clone().double().split(1):
        if method == "cam":
            name = layers[-1] if layers == ["conv2", "act"] else "act"
            (features, _), *_ = record(twin, [name], image, lambda out: out[:, CLASS])[0]
            maps.append(reference_cam(features[0], twin.head.weight[CLASS].detach().double(), image.shape[2:]))
        else:
            own = layers or (["conv1", "conv2", "conv3"] if method == "fully" else ["act"])
            maps.append(reference_map(method, twin, own, image, lambda out: out[:, CLASS]))
    return torch.stack(maps)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_contract(name, method, captured):
    case = CASES[name]
    torch.manual_seed(4)
    model = case.model()
    if case.dtype is not None and not name.startswith("compiled"):
        model = model.to(case.dtype)
    if name not in ("train mode", "eval does nothing"):
        model.eval()
    x = torch.randn(case.shape).to(case.dtype)
    x = case.prepare(x) if case.prepare else x
    options = {} if case.layers is None or method == "cam" else {"layers": case.layers}
    if name == "unused" and method == "eigencam":  # it has no score to be fed: every layer that ran would count
        options = {"layers": ["conv2", "conv3", "never"]}
    expected = expected_maps(case, method, model, x)
    assert (expected.amax((1, 2)) > 0).any()

    before = state_of(model, x)
    with case.under():
        explainer = camplug.create(method, model, **options)
        maps = explainer.maps(x, CLASS)
    assert_same(before, state_of(model, x))
    gc.collect()
    assert captured
    assert all(ref() is None for ref in captured), "an activation or gradient is still alive"

    assert maps.shape == (case.shape[0], *case.shape[2:])
    assert not maps.requires_grad
    assert maps.dtype == (torch.float64 if case.dtype == torch.float64 else torch.float32)
    assert relative_error(maps, expected) <= case.tolerance


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["compiled, eager", "compiled in place", "compiled inside"])
def test_an_explanation_compiles_nothing(name):
    torch.manual_seed(4)
    model = CASES[name].model()
    compiled_before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    camplug.GradCAM(model).maps(torch.randn(2, 3, 12, 12).double(), CLASS)
    camplug.CAM(model).maps(torch.randn(3, 3, 12, 12).double(), CLASS)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled_before


@pytest.mark.parametrize("method", METHODS)
def test_nothing_stays_alive(method):
    model = awkward.FeatureModule().double().eval()
    alive = []
    original = torch.Tensor.register_hook

    class Watch(nn.Module):
        def forward(self, x):
            alive.append(weakref.ref(x))
            return x

    model.act = nn.Sequential(nn.ReLU(), Watch())
    x = torch.randn(2, 3, 12, 12).double()
    explainer = camplug.create(method, model)
    maps = explainer.maps(x, CLASS)
    gc.collect()
    assert alive
    assert all(ref() is None for ref in alive)
    assert torch.Tensor.register_hook is original
    assert maps.untyped_storage().nbytes() == maps.numel() * 8  # not a view of something larger


@pytest.mark.parametrize("method", METHODS)
def test_a_forward_that_raises_leaves_nothing_behind(method):
    model = awkward.Failing().double().train()
    x = torch.randn(2, 3, 12, 12).double()
    before = state_of(model, x)
    with pytest.raises(ArithmeticError, match="on purpose"):
        camplug.create(method, model).maps(x, CLASS)
    assert_same(before, state_of(model, x))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [5, -1, True, 2.5, [1, 7], [1], [[1], 2]])
def test_a_class_that_does_not_exist_is_told(method, bad):
    model = awkward.FeatureModule().double().eval()
    x = torch.randn(2, 3, 12, 12).double()
    before = state_of(model, x)
    with pytest.raises(camplug.TargetError, match="class"):
        camplug.create(method, model).maps(x, bad)
    assert_same(before, state_of(model, x))


@pytest.mark.parametrize("method", METHODS)
def test_nan_in_one_image_is_told_with_its_number(method):
    model = awkward.FeatureModule().double().eval()
    x = torch.randn(3, 3, 12, 12).double()
    x[1, 0, 2, 2] = float("nan")
    with pytest.raises(camplug.TargetError, match="image 1 "):
        camplug.create(method, model).maps(x, CLASS)


@pytest.mark.parametrize("method", METHODS)
def test_two_threads_get_what_one_thread_gets(method):
    model = awkward.FeatureModule().double().train()
    inputs = [torch.randn(2, 3, 12, 12).double() for _ in range(8)]
    explainer = camplug.create(method, model)
    alone = [explainer.maps(x, i % 5) for i, x in enumerate(inputs)]
    before = state_of(model, inputs[0])
    wrong: list[Any] = []

    def work():
        try:
            for _ in range(3):
                for i, x in enumerate(inputs):
                    if not torch.allclose(explainer.maps(x, i % 5), alone[i], rtol=0, atol=1e-12):
                        wrong.append(i)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert_same(before, state_of(model, inputs[0]))


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_made_while_a_tape_is_open_is_an_ordinary_model(method):
    model = awkward.FeatureModule().double().eval()
    x = torch.randn(2, 3, 12, 12).double()
    expected = camplug.create(method, model).maps(x, CLASS)
    with camplug.Tape(model, "convs") as tape:
        model(x)
        twin = copy.deepcopy(model)
        count = len(tape.captures)
        twin(x)
        assert len(tape.captures) == count
    assert hooks(twin) == 0
    assert all(p.requires_grad for p in twin.parameters())
    assert torch.equal(camplug.create(method, twin).maps(x, CLASS), expected)


@pytest.mark.parametrize("method", METHODS)
def test_many_classes_of_many_images_are_the_maps_one_by_one(method):
    model = awkward.FeatureModule().double().eval()
    x = torch.randn(3, 3, 12, 12).double()
    explainer = camplug.create(method, model)
    wanted = [[0, 4, 2], [], [1]]
    together = explainer.maps(x, wanted, size=(7, 9))
    assert [tuple(m.shape) for m in together] == [(3, 7, 9), (0, 7, 9), (1, 7, 9)]
    for i, row in enumerate(wanted):
        for k, c in enumerate(row):
            alone = explainer.maps(x[i : i + 1], c, size=(7, 9))[0]
            assert torch.allclose(together[i][k], alone, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_raw_values_differ_from_the_normalised_ones_by_a_factor(method):
    model = awkward.FeatureModule().double().eval()
    x = torch.randn(2, 3, 12, 12).double()
    raw = camplug.create(method, model, normalize=None).maps(x, CLASS)
    scaled = camplug.create(method, model).maps(x, CLASS)
    assert torch.allclose(raw / raw.amax((1, 2), keepdim=True), scaled)
    low = camplug.create(method, model, normalize="minmax").maps(x, CLASS)
    assert low.amin() == 0
    assert torch.equal(low.amax((1, 2)), torch.ones(2).double())
