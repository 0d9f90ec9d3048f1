"""Compiled explanations: equal to eager ones, with bounded compilations, and eager where nothing can be compiled.

Graphs run as they are traced here, which is quick; two tests compile them.
"""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
from torch import nn

import camplug
from camplug.errors import InputError
from camplug.explain import compiled as compiled_module
from camplug.explain.batch import check_batch
from camplug.explain.compiled_graph import trace_explainer

METHODS = {
    "FullyCAM": lambda m: camplug.FullyCAM(m, layer_weighting="max"),
    "LayerCAM": lambda m: camplug.LayerCAM(m, "convs", evidence="negative"),
    "XGradCAM": lambda m: camplug.XGradCAM(m, normalize="minmax"),
    "GradCAM++": lambda m: camplug.GradCAMPlusPlus(m, normalize=None),
}


class Network(nn.Module):
    """Strides, groups, dilation, normalisation in place, pooling and a shortcut."""

    def __init__(self, classes=3):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4, bias=False)
        self.down = nn.Conv2d(8, 12, 2, stride=2)
        self.head = nn.Linear(12, classes)

    def forward(self, x):
        x = nn.functional.relu_(self.norm(self.stem(x)))
        x = x + self.deep(x)
        x = nn.functional.max_pool2d(self.down(x), 2, ceil_mode=True)
        return self.head(x.mean((2, 3)))


def make_network(dtype=torch.float32, **options):
    torch.manual_seed(5)
    model = Network(**options)
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    return model.to(dtype).eval()


def images(n, height=17, width=22, dtype=torch.float32):
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.fixture(autouse=True)
def traced_only(request, monkeypatch):
    """Run graphs as they are traced, except in tests named `..._compiled_by_...`."""
    if "compiled_by" not in request.node.name:
        monkeypatch.setattr(compiled_module, "compile_graph", lambda graph, device, backend: torch.no_grad()(graph))


def assert_equal(got, want, atol=1e-5):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.fixture
def quiet():
    """No warning: nothing runs eagerly."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.parametrize("method", METHODS)
def test_compiled_maps_equal_eager_ones(method, quiet):
    eager = METHODS[method](make_network())
    compiled = camplug.Compiled(eager)
    x, others = images(4).split(2)
    compiled.maps(x, [0, 2])
    assert compiled.compilations == 1
    assert_equal(compiled.maps(others, [1, 1], size=(30, 31)), eager.maps(others, [1, 1], size=(30, 31)))
    assert compiled.compilations == 1


@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-12), (torch.bfloat16, 0.03)], ids=str)
def test_other_dtypes(dtype, atol, quiet):
    eager = camplug.FullyCAM(make_network(dtype))
    compiled = camplug.Compiled(eager)
    x = images(2, dtype=dtype)
    compiled.maps(x, 0)
    assert_equal(compiled.maps(x.flip(0), 1), eager.maps(x.flip(0), 1), atol)


def test_graph_has_neither_hooks_nor_gradients_of_convolutions():
    model = make_network()
    explainer, x = camplug.FullyCAM(model), images(2)
    explainer.maps(x, 0)
    graph = trace_explainer(explainer, check_batch(model, x), 1, False)
    names = [getattr(n.target, "__name__", "") for n in graph.graph.nodes if n.op == "call_function"]
    assert "convolution_backward.default" not in names
    assert names.count("convolution.default") == 3 + 2  # forward, and gradients at the inputs of the last two


def test_predicted_and_several_classes(quiet):
    eager = camplug.FullyCAM(make_network())
    compiled = camplug.Compiled(eager)
    x, others = images(6).split(3)
    wanted = [[0, 2], [], [camplug.Against(1)]]
    for classes in (None, wanted):
        compiled.maps(x, classes)
        assert_equal(compiled.maps(others, classes), eager.maps(others, classes))
    assert compiled.compilations == 2
    got, want = compiled.run(others, None), eager.run(others, None)
    assert got.targets.classes == want.targets.classes
    assert got.targets.link == want.targets.link
    assert_equal([got.logits], [want.logits])


@pytest.mark.parametrize(
    "classes",
    [[[1, 0, 1], [0, 1, 0]], [[0, 1], [1, 0]], torch.eye(3)[:2], [[], []]],
    ids=["rows", "lists", "tensor", "none"],
)
def test_labels_and_lists_of_classes(classes, quiet):
    eager = camplug.GradCAM(make_network(), "deep")
    compiled = camplug.Compiled(eager)
    for x in images(4).split(2):
        assert_equal(compiled.maps(x, classes), eager.maps(x, classes))


def test_smaller_batches_use_a_larger_graph(quiet):
    eager = camplug.FullyCAM(make_network())
    compiled = camplug.Compiled(eager)
    x = images(4)
    compiled.maps(x, [0, 1, 2, 0])
    assert_equal(compiled.maps(x[:3], [2, 1, 0]), eager.maps(x[:3], [2, 1, 0]))
    assert_equal(compiled.maps(x[:2], None), eager.maps(x[:2], None))  # predicted classes are another graph
    assert compiled.compilations == 2
    compiled.maps(x[:1], [0])  # less than half of 4
    assert compiled.compilations == 3


def test_compilations_are_bounded():
    eager = camplug.FullyCAM(make_network())
    compiled = camplug.Compiled(eager, most=1)
    compiled.maps(images(1), 0)
    with pytest.warns(UserWarning, match=r"runs eagerly: 1 graphs are compiled already \(most=\)"):
        got = compiled.maps(images(1, 20, 20), 0)
    assert_equal(got, eager.maps(images(1, 20, 20), 0))
    assert compiled.compilations == 1


def test_changed_weights_are_seen(quiet):
    model = make_network()
    eager = camplug.FullyCAM(model)
    compiled = camplug.Compiled(eager)
    x = images(2)
    compiled.maps(x, 0)
    with torch.no_grad():
        model.deep.weight.mul_(-1)
    model.head.weight = nn.Parameter(model.head.weight.flip(0).contiguous())
    assert_equal(compiled.maps(x, 0), eager.maps(x, 0))
    assert_equal(compiled.maps(x, 0), eager.maps(x, 0))
    assert compiled.compilations == 2


class Looking(Network):
    def forward(self, x):
        return super().forward(x if x.mean().item() > 0 else -x)


class Counting(Network):
    """The output depends on how often the model was called."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls**2 + self.calls


class Viewing(Network):
    """Takes images in the usual memory format alone."""

    def forward(self, x):
        return super().forward(x.view(x.shape[0], -1).view(x.shape))


@pytest.mark.parametrize(
    "kind, reason",
    [
        (Viewing, "the model cannot be compiled"),
        (Looking, "the model cannot be compiled"),
        (Counting, "gives other maps"),
    ],
)
def test_models_that_cannot_be_compiled_run_eagerly(kind, reason):
    torch.manual_seed(5)
    model = kind().eval()
    explainer = camplug.Compiled(camplug.FullyCAM(model))
    with pytest.warns(UserWarning, match=reason):
        explainer.maps(images(2), 0)
    with warnings.catch_warnings():  # told once
        warnings.simplefilter("error", UserWarning)
        got = explainer.maps(images(2), 0)
    assert_equal(got, camplug.FullyCAM(model).maps(images(2), 0))
    assert explainer.compilations == 1


def test_calls_that_cannot_be_compiled_run_eagerly():
    model = make_network()
    x = images(2)
    explainer = camplug.Compiled(camplug.FullyCAM(model))
    with pytest.warns(UserWarning, match="the score is a callable"):
        got = explainer.maps(x, lambda y: y[:, 0] * 2)
    assert_equal(got, camplug.FullyCAM(model).maps(x, 0))
    with pytest.warns(UserWarning, match="EigenCAM is more than a map of activation and gradient at each layer"):
        got = camplug.Compiled(camplug.EigenCAM(model)).maps(x, 0)
    assert_equal(got, camplug.EigenCAM(model).maps(x, 0))


def test_bad_input():
    model = make_network()
    with pytest.raises(InputError, match="most=0; give the largest number of compiled graphs"):
        camplug.Compiled(camplug.FullyCAM(model), most=0)
    with pytest.raises(InputError, match=r"backend='none'; allowed are the backends of torch\.compile"):
        camplug.Compiled(camplug.FullyCAM(model), backend="none")
    explainer = camplug.Compiled(camplug.FullyCAM(model))
    explainer.maps(images(1), 0)
    with pytest.raises(camplug.TargetError, match="class 7 is outside the model's 3 classes"):
        explainer.maps(images(1), 7)
    with pytest.raises(camplug.TargetError, match="NaN or infinite"):
        explainer.maps(images(1) * float("nan"), 0)


def test_inside_of_wrappers_and_inference_mode(quiet):
    eager = camplug.FullyCAM(make_network())
    views = camplug.MultiView(camplug.Compiled(eager), scales=(1.0,), flip=True)
    x = images(1)
    with torch.inference_mode():
        views.maps(x, 0)
        got = views.maps(x, 0)
    assert_equal(got, camplug.MultiView(eager, scales=(1.0,), flip=True).maps(x, 0))


@pytest.mark.parametrize(
    "backend",
    [
        "eager",
        pytest.param(
            "inductor",
            marks=[pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")],
        ),
    ],
)
def test_compiled_by_torch(backend, quiet):
    eager = camplug.FullyCAM(make_network())
    compiled = camplug.Compiled(eager, backend=backend)
    x, others = images(4).split(2)
    compiled.maps(x, 0)
    assert_equal(compiled.maps(others, [1, 2]), eager.maps(others, [1, 2]))
    assert compiled.compilations == 1
