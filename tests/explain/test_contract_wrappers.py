"""The contract of the wrappers: each around one method, through every awkward case, and nothing left behind.

The expected maps come from the same wrapper around the slow reference on the case's plain twin; that the wrappers
themselves do what they should is shown in their own files.
"""

from __future__ import annotations

import copy
import threading
from typing import Any

import awkward
import garbage
import pytest
import torch
from cases import CASES, CLASS, SLOW, assert_same, built, state_of, twin_of
from reference import reference_map, relative_error

import camplug
from camplug import ClassConditional, Compete, Dense, FinerCAM, IterativeErasing, MultiView, Propagate, SplitUnite
from camplug.explain.base import Result
from camplug.plug import resolve_classes

pytestmark = pytest.mark.slow  # a long table of cases

WRAPPERS = {
    "multiview": lambda e, judge: MultiView(e, (1.0, 1.5)),
    "iterativeerasing": lambda e, judge: IterativeErasing(e, "repo", max_iter=3),
    "splitunite": lambda e, judge: SplitUnite(e, "paper", smallest=4, margins=(2, 1)),
    "classconditional": lambda e, judge: ClassConditional(e, "paper", split={"smallest": 4}, erase={"max_iter": 2}),
    "compete": Compete,
    "propagate": lambda e, judge: Propagate(e, strides=(1, 2), zoom=1),
    "finercam": lambda e, judge: FinerCAM(e, 2),
    "dense": lambda e, judge: Dense(e, 1),  # every model of the cases has stride 2
}
JUMPY = {"iterativeerasing", "splitunite", "classconditional"}  # a threshold, a whole pixel: rounding may move them
ROUNDING = {"bf16", "fp16", "autocast"}


class Reference(camplug.Explainer):
    """The slow reference as an explainer."""

    name = "reference"

    def __init__(self, method, model, layers):
        super().__init__(model)
        self.method, self.layers = method, layers

    def run(self, x, classes, size=None):
        with torch.no_grad():
            logits = self.model(x)
        targets = resolve_classes(classes, logits, len(x))
        size = size or tuple(x.shape[2:])
        if targets.score:
            scores = [lambda out, i=i: targets.score(out.expand(len(x), -1))[i : i + 1] for i in range(len(x))]
            found = [
                reference_map(self.method, self.model, self.layers, image, score, size)[None]
                for image, score in zip(x.split(1), scores, strict=True)
            ]
            return Result(found, targets, logits)
        maps = []
        for image, row in zip(x.split(1), targets.classes, strict=True):
            found = [
                reference_map(self.method, self.model, self.layers, image, lambda out, c=c: out[:, c], size)
                for c in row
            ]
            maps.append(torch.stack(found) if found else torch.zeros(0, *size))
        return Result(maps, targets, logits)


def plain_twin(case, model):
    """A copy on the CPU, in float64 and evaluation mode, in no awkward circumstances."""
    return copy.deepcopy((case.twin or (lambda m: m))(model)).to("cpu", torch.float64).eval()


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_contract(name, wrapper, captured, device):
    case = CASES[name]
    model, x = built(name, device)
    layers = case.names or case.layers or ["act"]
    classes = [[CLASS, 1], *[[CLASS]] * (len(x) - 1)]
    twin = plain_twin(case, model)
    around = WRAPPERS[wrapper]
    slow = around(Reference("layercam", twin, layers), Reference("gradcam", twin, layers))
    expected = slow.maps(x.detach().clone().to("cpu", torch.float64), classes)
    assert all((m.amax((1, 2)) > 0).all() for m in expected)

    before = state_of(model, x)
    with case.under(device):
        inner, judge = (camplug.create(method, model, layers=case.layers) for method in ("layercam", "gradcam"))
        maps = around(inner, judge).maps(x, classes)
    assert_same(before, state_of(model, x))
    if any(ref() is not None for ref in captured):
        garbage.collect()
    assert captured
    assert all(ref() is None for ref in captured), "an activation or gradient is still alive"

    for got, want in zip(maps, expected, strict=True):
        assert got.shape == want.shape
        assert got.device == x.device
        assert not got.requires_grad
        assert got.dtype == (torch.float64 if case.dtype == torch.float64 else torch.float32)
        assert (got.amax((1, 2)) == 1).all()
        if not (wrapper in JUMPY and name in ROUNDING):
            assert relative_error(got, want) <= max(case.tolerance, case.on_cuda if x.is_cuda else 0)


def on(device, kind=awkward.FeatureModule):
    """A model in float64 on a device."""
    model = kind().to(device, torch.float64)
    model.eval()  # TrainOnly gives nothing back
    return model


def batch(device, n=2):
    return torch.randn(n, 3, 12, 12).to(device, torch.float64)


def wrapped(wrapper, model):
    return WRAPPERS[wrapper](camplug.FullyCAM(model), camplug.CAM(model))


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
def test_finding_the_predicted_class_leaves_the_model_as_it_is(wrapper, device):
    model, x = on(device, awkward.TrainOnly), batch(device)
    model.train()
    twin = twin_of(model, awkward.FeatureModule)
    before = state_of(model, x)
    with torch.inference_mode():
        maps = wrapped(wrapper, model).maps(x)
    assert_same(before, state_of(model, x))
    torch.testing.assert_close(maps, wrapped(wrapper, twin).maps(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize("classes", [CLASS, None, [[CLASS, 1], [0]]])
def test_a_forward_that_raises_leaves_nothing_behind(wrapper, classes, device):
    model, x = on(device, awkward.Failing).train(), batch(device)
    around = WRAPPERS[wrapper](camplug.FullyCAM(model), camplug.GradCAM(model, "act"))
    before = state_of(model, x)
    with pytest.raises((ArithmeticError, camplug.ModelError), match="on purpose"):
        around.maps(x, classes)
    assert_same(before, state_of(model, x))


class FailsLater(awkward.FeatureModule):
    """Takes a few passes, and no more."""

    left = 0

    def features(self, x):
        if self.left == 0:
            raise ArithmeticError("broken on purpose")
        self.left -= 1
        return super().features(x)


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_later_pass_that_raises_leaves_nothing_behind(wrapper, passes, device):
    model, x = on(device, FailsLater).train(), batch(device)
    model.left = 100
    around = WRAPPERS[wrapper](camplug.FullyCAM(model), camplug.GradCAM(model, "act"))
    around.maps(x, [[CLASS, 1], [0]])
    needed = 100 - model.left
    if wrapper == "dense":  # the two passes that find its layout count for nothing: the model's state is put back
        assert needed == 1
    before = state_of(model, x)
    model.left = min(passes, needed) - 1
    with pytest.raises(ArithmeticError, match="on purpose"):
        around.maps(x, [[CLASS, 1], [0]])
    assert_same(before, state_of(model, x))
    assert (model.conv2.stride, model.conv3.dilation, model.conv2.padding) == ((2, 2), (1, 1), (1, 1))


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize("bad", [5, -1, True, 2.5, [1, 7], [1], [[1], 2]])
def test_a_class_that_does_not_exist_is_told(wrapper, bad, device):
    model, x = on(device), batch(device)
    before = state_of(model, x)
    with pytest.raises(camplug.TargetError, match="class"):
        wrapped(wrapper, model).maps(x, bad)
    assert_same(before, state_of(model, x))


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
def test_nan_in_one_image_is_told_with_its_number(wrapper, device):
    model, x = on(device), batch(device, 3)
    x[1, 0, 2, 2] = float("nan")
    with pytest.raises(camplug.TargetError, match=r"for image 1\b"):
        wrapped(wrapper, model).maps(x, CLASS)


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
def test_many_classes_of_many_images_are_the_maps_one_by_one(wrapper, device):
    model, x = on(device), batch(device, 3)
    around = wrapped(wrapper, model)
    wanted = [[0, 4, 2], [], [1]]
    together = around.maps(x, wanted, size=(7, 9))
    assert [tuple(m.shape) for m in together] == [(3, 7, 9), (0, 7, 9), (1, 7, 9)]
    for i in (0, 2):
        alone = around.maps(x[i : i + 1], [wanted[i]], size=(7, 9))[0]
        assert torch.allclose(together[i], alone, atol=1e-12)


def in_two_threads(explainers, inputs, alone):
    """What went wrong when two threads explain all inputs, each with its explainer."""
    wrong: list[Any] = []

    def work(explainer, wants):
        try:
            for _ in range(3):
                for i, x in enumerate(inputs):
                    maps = explainer.maps(x, [[i % 5, 1]] * len(x))
                    if not all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(maps, wants[i], strict=True)):
                        wrong.append(i)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(explainers, alone, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


THREADED = {
    **WRAPPERS,
    "views of a dense one": lambda e, judge: MultiView(Dense(e, 1), (1.0, 1.5)),
    "erasing a dense one": lambda e, judge: IterativeErasing(Dense(e, 1), "repo", max_iter=3),
}


@pytest.mark.parametrize("wrapper", THREADED)
def test_two_threads_get_what_one_thread_gets(wrapper, device):
    model = on(device).train()
    inputs = [batch(device) for _ in range(4)]
    around = THREADED[wrapper](camplug.FullyCAM(model), camplug.GradCAM(model))
    alone = [around.maps(x, [[i % 5, 1]] * 2) for i, x in enumerate(inputs)]
    before = state_of(model, inputs[0])
    assert in_two_threads([around, around], inputs, [alone, alone]) == []
    assert_same(before, state_of(model, inputs[0]))


def test_two_threads_at_two_output_strides(device):
    model = on(device).train()
    inputs = [batch(device) for _ in range(4)]
    pair = [Dense(camplug.FullyCAM(model), 1), Dense(camplug.FullyCAM(model), 2)]
    alone = [[e.maps(x, [[i % 5, 1]] * 2) for i, x in enumerate(inputs)] for e in pair]
    assert not torch.allclose(alone[0][0][0], alone[1][0][0])
    before = state_of(model, inputs[0])
    assert in_two_threads(pair, inputs, alone) == []
    assert_same(before, state_of(model, inputs[0]))
