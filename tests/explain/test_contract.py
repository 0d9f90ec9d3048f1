"""The contract: every method through every awkward case, against the reference, and nothing left behind.

The table is `CASES` in `tests/support/cases.py`.
"""

from __future__ import annotations

import copy
import threading
import weakref
from typing import Any

import awkward
import garbage
import pytest
import torch
from cases import CASES, CLASS, SLOW, assert_same, built, hooks, state_of
from reference import FORMULAS, record, reference_cam, reference_map, relative_error
from torch import nn

import camplug

pytestmark = pytest.mark.slow  # a long table of cases

METHODS = ["cam", *FORMULAS]


def expected_maps(case, method, model, x):
    twin = (case.twin or (lambda m: m))(model)
    layers = case.names or case.layers
    maps = []
    for image in x.detach().clone().double().split(1):
        if method == "cam":
            name = layers[-1] if layers == ["conv2", "act"] else "act"
            (features, _), *_ = record(twin, [name], image, lambda out: out[:, CLASS])[0]
            maps.append(reference_cam(features[0], twin.head.weight[CLASS], image.shape[2:]))
        else:
            own = layers or (["conv1", "conv2", "conv3"] if method == "fully" else ["act"])
            maps.append(reference_map(method, twin, own, image, lambda out: out[:, CLASS]))
    return torch.stack(maps)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_contract(name, method, captured, device):
    case = CASES[name]
    model, x = built(name, device)
    options = {} if case.layers is None or method == "cam" else {"layers": case.layers}
    if name == "unused" and method == "eigencam":  # it has no score to be fed: every layer that ran would count
        options = {"layers": ["conv2", "conv3", "never"]}
    expected = expected_maps(case, method, model, x)
    assert (expected.amax((1, 2)) > 0).any()

    before = state_of(model, x)
    with case.under(device):
        explainer = camplug.create(method, model, **options)
        maps = explainer.maps(x, CLASS)
    assert_same(before, state_of(model, x))
    garbage.collect()
    assert captured
    assert all(ref() is None for ref in captured), "an activation or gradient is still alive"

    assert maps.shape == (case.shape[0], *case.shape[2:])
    assert maps.device == x.device
    assert not maps.requires_grad
    assert maps.dtype == (torch.float64 if case.dtype == torch.float64 else torch.float32)
    assert relative_error(maps, expected) <= max(case.tolerance, case.on_cuda if x.is_cuda else 0)


@pytest.mark.filterwarnings("error", "ignore:.*deprecated:DeprecationWarning")  # in torch's own imports
@pytest.mark.parametrize("name", ["compiled, eager", "compiled in place", "compiled inside"])
def test_an_explanation_compiles_nothing(name, device):
    model, x = built(name, device)
    compiled_before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    camplug.GradCAM(model).maps(x, CLASS)
    camplug.CAM(model).maps(x[[0, 1, 0]], CLASS)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled_before


def on(device, kind=awkward.FeatureModule):
    """A model in float64 on a device."""
    return kind().to(device, torch.float64).eval()


def batch(device, n=2):
    return torch.randn(n, 3, 12, 12).to(device, torch.float64)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_stays_alive(method, device):
    model = on(device)
    alive = []
    original = torch.Tensor.register_hook

    class Watch(nn.Module):
        def forward(self, x):
            alive.append(weakref.ref(x))
            return x

    model.act = nn.Sequential(nn.ReLU(), Watch())
    x = batch(device)
    explainer = camplug.create(method, model)
    maps = explainer.maps(x, CLASS)
    garbage.collect()
    assert alive
    assert all(ref() is None for ref in alive)
    assert torch.Tensor.register_hook is original
    assert maps.untyped_storage().nbytes() == maps.numel() * 8  # not a view of something larger


@pytest.mark.parametrize("method", METHODS)
def test_a_forward_that_raises_leaves_nothing_behind(method, device):
    model = on(device, awkward.Failing).train()
    x = batch(device)
    before = state_of(model, x)
    with pytest.raises(ArithmeticError, match="on purpose"):
        camplug.create(method, model).maps(x, CLASS)
    assert_same(before, state_of(model, x))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [5, -1, True, 2.5, [1, 7], [1], [[1], 2]])
def test_a_class_that_does_not_exist_is_told(method, bad, device):
    model = on(device)
    x = batch(device)
    before = state_of(model, x)
    with pytest.raises(camplug.TargetError, match="class"):
        camplug.create(method, model).maps(x, bad)
    assert_same(before, state_of(model, x))


@pytest.mark.parametrize("method", METHODS)
def test_nan_in_one_image_is_told_with_its_number(method, device):
    model = on(device)
    x = batch(device, 3)
    x[1, 0, 2, 2] = float("nan")
    with pytest.raises(camplug.TargetError, match="image 1 "):
        camplug.create(method, model).maps(x, CLASS)


@pytest.mark.parametrize("method", METHODS)
def test_two_threads_get_what_one_thread_gets(method, device):
    model = on(device).train()
    inputs = [batch(device) for _ in range(8)]
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
def test_a_copy_made_while_a_tape_is_open_is_an_ordinary_model(method, device):
    model = on(device)
    x = batch(device)
    expected = camplug.create(method, model).maps(x, CLASS)
    with camplug.Tape(model, "convs") as tape:
        model(x)
        twin = copy.deepcopy(model)
        count = len(tape.captures)
        twin(x)
        assert len(tape.captures) == count
    assert hooks(twin) == 0
    assert all(p.requires_grad for p in twin.parameters())
    torch.testing.assert_close(camplug.create(method, twin).maps(x, CLASS), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_many_classes_of_many_images_are_the_maps_one_by_one(method, device):
    model = on(device)
    x = batch(device, 3)
    explainer = camplug.create(method, model)
    wanted = [[0, 4, 2], [], [1]]
    together = explainer.maps(x, wanted, size=(7, 9))
    assert [tuple(m.shape) for m in together] == [(3, 7, 9), (0, 7, 9), (1, 7, 9)]
    for i, row in enumerate(wanted):
        for k, c in enumerate(row):
            alone = explainer.maps(x[i : i + 1], c, size=(7, 9))[0]
            assert torch.allclose(together[i][k], alone, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_raw_values_differ_from_the_normalised_ones_by_a_factor(method, device):
    model = on(device)
    x = batch(device)
    raw = camplug.create(method, model, normalize=None).maps(x, CLASS)
    scaled = camplug.create(method, model).maps(x, CLASS)
    assert torch.allclose(raw / raw.amax((1, 2), keepdim=True), scaled)
    low = camplug.create(method, model, normalize="minmax").maps(x, CLASS)
    assert low.amin() == 0
    assert low.amax((1, 2)).tolist() == [1, 1]
